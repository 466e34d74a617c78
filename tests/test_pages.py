"""Pages of HTML: what a browser shows is read, with words as far apart as it shows them."""

from __future__ import annotations

import time

import pytest

from weft.documents import read_documents
from weft.formats.html import page_text


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<html><head><title>T</title><body><p>No end of the head.", "T\n\nNo end of the head."),
        ("<title>T</title>Neither head nor body", "T\n\nNeither head nor body"),
        ("<title>Travel</title><h1>Travel</h1>by train", "Travel\n\nby train"),
        ("one<br>two<br/>three<br><br>four", "one\ntwo\nthree\n\nfour"),
        ("a<b>b</b>c<i>d</i> e<wbr>f", "abcd ef"),
        ("<div>one</div><section>two</section><address>three</address>", "one\n\ntwo\n\nthree"),
        ("<p>one<p>two<h2>three</h2>four", "one\n\ntwo\n\nthree\n\nfour"),
        ("<dl><dt>Travel<dd>The director.<dt>Sick<dd>The doctor.</dl>", "Travel\nThe director.\nSick\nThe doctor."),
        ("<select><option>Red<option>Blue</select>", "Red\nBlue"),
        ("<figure>x<figcaption>y</figcaption></figure>", "x\n\ny"),
        ("<table><tr><th>Name<th>Price<tr><td>Apple<td>12</table>", "Name\tPrice\nApple\t12"),
        ("<table><tr><td><p>a</p></td><td></td><td><div>c</div></td></table>", "a\t\tc"),
        ("<table><caption>Fruit</caption><tr><td>a<td><table><tr><td>b<td>c</table></table>z", "Fruit\n\na\nb\tc\n\nz"),
        ("<ul><li>One<ul><li>Two</ul><li><p>Three</ul>", "- One\n- Two\n- Three"),
        ("<ol><li>One<li>Two<li value=7>Seven</ol>", "1. One\n2. Two\n7. Seven"),
        ("<ol type=a start=3><li>c<li>d</ol>", "c. c\nd. d"),
        ("<pre>\n  if x:\n    y\n</pre>after", "if x:\n    y\n\n\nafter"),
        ("10<sup>6</sup> people, H<sub>2</sub>O, the 1<sup>st</sup>", "10⁶ people, H2O, the 1st"),
        ("<math><mfrac><mn>1</mn><mn>2</mn></mfrac></math>", "1/2"),
        ("<ruby>漢<rp>(</rp><rt>かん</rt><rp>)</rp></ruby>", "漢(かん)"),
        ("&lt;b&gt; &eacute;&nbsp;&#8211; &#150; &unknown;", "<b> é\u00a0– – &unknown;"),
        ("<p hidden>no</p><p style='Display : none'>no</p><p>yes</p><dialog>no</dialog>", "yes"),
        ("<script>if (a<b) '<p>no</p>'</script><style>p{}</style><noscript>no</noscript>yes", "yes"),
        ("<template><p>no</template><svg><title>no</title><text>yes</text></svg>", "yes"),
        ("a<!-- no <p>no</p> -->b", "ab"),
        ("<details><summary>Sum</summary>More</details>", "Sum\nMore"),
        ("<img src=x alt='A dog'> and <input value=Anna><input type=hidden value=no>", "A dog and Anna"),
        ("<b>never <i>closed", "never closed"),
        ("<?xml version='1.0' encoding='utf-8'?><html xmlns='http://www.w3.org/1999/xhtml'><p>x</p></html>", "x"),
        ("", ""),
    ],
)
def test_page_as_browsers_show_it(page, text):
    assert page_text(page) == text


@pytest.mark.parametrize(
    "data",
    [
        "<meta charset=iso-8859-1><p>café – x".encode("cp1252"),  # browsers read Latin-1 as Windows-1252
        b"<meta http-equiv=Content-Type content='text/html; charset=windows-1252'>" + "<p>café – x".encode("cp1252"),
        "<meta charset=utf-8><p>café – x".encode(),
        "<meta charset=utf-16><p>café – x".encode(),
        "\ufeff<p>café – x".encode("utf-16"),
        "<?xml version='1.0' encoding='ISO-8859-15'?><p>café</p><p>– x".replace("– ", "").encode("iso8859-15"),
        "<meta charset=nonsense><p>café – x".encode(),
    ],
)
def test_encoding_is_the_one_that_a_page_declares_if_that_fits(tmp_path, data):
    (tmp_path / "a.html").write_bytes(data)
    assert read_documents(tmp_path / "a.html")[0].text.split()[0] == "café"


def test_deep_page_is_read_to_the_bottom():
    assert "bottom" in page_text("<div>" * 20_000 + "bottom")


def test_time_grows_with_the_page_alone():
    took = []
    for times in (2_000, 16_000):
        page = "<div><p>Some <b>bold</b> words &amp; more<table><tr><td>a<td>b</table></div>" * times
        start = time.process_time()
        assert page_text(page).count("bold") == times
        took.append(time.process_time() - start)
    assert took[1] < 24 * took[0] + 0.5
