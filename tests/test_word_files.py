"""Word files: what people see in them is read, once and in its order; what they don't see is not."""

from __future__ import annotations

import docx
import pytest
from office_files import NAMESPACES, cell, field, package, paragraph, run, text_box, word_file

from weft.documents import read_documents
from weft.errors import DataError


@pytest.fixture
def read(tmp_path):
    """The text of a Word file with some body."""

    def text(body, **parts):
        return read_documents(word_file(tmp_path / "a.docx", body, **parts))[0].text

    return text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (paragraph("Costs ", f"<w:ins>{run('are paid')}</w:ins>", " now"), "Costs are paid now"),
        (paragraph("Costs ", "<w:del><w:r><w:delText>never</w:delText></w:r></w:del>", "count"), "Costs count"),
        (paragraph(f"<w:moveFrom>{run('here')}</w:moveFrom>", f"<w:moveTo>{run('there')}</w:moveTo>"), "there"),
        (f"<w:ins>{paragraph('A new paragraph')}</w:ins>", "A new paragraph"),
        (
            paragraph("one ", properties="<w:rPr><w:del/></w:rPr>") + paragraph("and the same"),
            "one and the same",
        ),
        (f"<w:sdt><w:sdtPr><w:t>no</w:t></w:sdtPr><w:sdtContent>{paragraph('yes')}</w:sdtContent></w:sdt>", "yes"),
        (paragraph("Dear ", f"<w:sdt><w:sdtContent>{run('Ann')}</w:sdtContent></w:sdt>"), "Dear Ann"),
        (paragraph(f"<w:smartTag>{run('Paris')}</w:smartTag>"), "Paris"),
        (paragraph(f"<w:customXml>{run('Paris')}</w:customXml>"), "Paris"),
        (paragraph(f"<w:hyperlink>{run('our site')}</w:hyperlink>"), "our site"),
        (paragraph(f"<w:fldSimple>{run('Ann')}</w:fldSimple>"), "Ann"),
        (paragraph(field('IF "a"', run("shown"))), "shown"),
        (
            paragraph(
                '<w:r><w:fldChar w:fldCharType="begin"/></w:r>',
                field("inner", run("code")),
                '<w:r><w:fldChar w:fldCharType="separate"/></w:r>',
                "result",
                '<w:r><w:fldChar w:fldCharType="end"/></w:r>',
            ),
            "result",
        ),
        (
            paragraph(
                "Agreed: ",
                '<w:r><w:fldChar w:fldCharType="begin"><w:ffData><w:checkBox><w:checked/></w:checkBox></w:ffData>'
                '</w:fldChar></w:r><w:r><w:fldChar w:fldCharType="end"/></w:r>',
            ),
            "Agreed: ☒",
        ),
        (paragraph("seen", run("hidden", "<w:vanish/>"), run(" too", '<w:vanish w:val="0"/>')), "seen too"),
        (paragraph("10", run("6", '<w:vertAlign w:val="superscript"/>'), " people"), "10⁶ people"),
        (paragraph("director", run("1", '<w:vertAlign w:val="superscript"/>')), "director ¹"),
        (paragraph("<w:r><w:t>ap</w:t><w:softHyphen/><w:t>proved</w:t></w:r>"), "approved"),
        (paragraph("<w:r><w:t>e</w:t><w:noBreakHyphen/><w:t>mail</w:t><w:tab/><w:t>x</w:t></w:r>"), "e-mail\tx"),
        (paragraph("<w:r><w:t>one</w:t><w:br/><w:t>two</w:t></w:r>"), "one\ntwo"),
        (paragraph('<w:r><w:sym w:font="Wingdings" w:char="F0FE"/></w:r>', " done"), "☑ done"),
        (
            paragraph("<m:f><m:num><m:r><m:t>1</m:t></m:r></m:num><m:den><m:r><m:t>2</m:t></m:r></m:den></m:f>"),
            "1/2",
        ),
        (paragraph("before", text_box("in the box")) + paragraph("after"), "before\n\nin the box\n\nafter"),
    ],
)
def test_what_is_seen_is_read_and_what_is_not_seen_is_not(read, content, text):
    assert read(content) == text


def test_tables_are_read_row_by_row_each_merged_cell_once(read):
    nested = f"<w:tbl><w:tr>{cell('in')}{cell('side')}</w:tr></w:tbl>{paragraph()}"
    rows = [
        cell("wide", '<w:gridSpan w:val="2"/>') + cell("c"),
        cell("tall", '<w:vMerge w:val="restart"/>') + cell("b") + cell("c2"),
        cell("tall", "<w:vMerge/>") + cell("b3") + cell(nested),
    ]
    deleted = f"<w:tr><w:trPr><w:del/></w:trPr>{cell('gone')}</w:tr>"
    held = f"<w:sdt><w:sdtContent><w:tr>{cell('held')}</w:tr></w:sdtContent></w:sdt>"
    table = f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in rows)}{deleted}{held}</w:tbl>"
    assert read(table) == "wide\tc\ntall\tb\tc2\n\tb3\tin\tside\nheld"


def test_table_in_a_text_box_stays_together(read):
    table = f"<w:tbl><w:tr>{cell('a')}{cell('b')}</w:tr></w:tbl>"
    box = text_box("x").replace(paragraph("x"), table)
    assert read(paragraph("before", box)) == "before\n\na\tb"


def test_notes_and_comments_stand_behind_their_paragraph_and_unused_ones_nowhere(read):
    body = paragraph(
        "Costs",
        '<w:r><w:footnoteReference w:id="7"/></w:r>',
        " rise",
        '<w:r><w:endnoteReference w:id="1"/></w:r>',
        '<w:r><w:commentReference w:id="0"/></w:r>',
    ) + paragraph("The end")
    text = read(
        body,
        footnotes=f'<w:footnote w:id="3">{paragraph("unused")}</w:footnote>'
        f'<w:footnote w:id="7">{paragraph("Without tax")}</w:footnote>',
        endnotes=f'<w:endnote w:id="1">{paragraph("Since May")}</w:endnote>',
        comments=f'<w:comment w:id="0" w:author="Ann">{paragraph("Really?")}</w:comment>',
    )
    assert text == "Costs[1] rise[i]\n\n[1] Without tax\n\n[i] Since May\n\n[Comment by Ann: Really?]\n\nThe end"


def test_headers_and_footers_are_read_once(read):
    used = '<w:headerReference r:id="header1"/><w:headerReference r:id="header2"/><w:footerReference r:id="footer1"/>'
    section = f"<w:sectPr>{used}</w:sectPr>"
    body = paragraph("Body", properties=section) + paragraph("More") + section
    header, footer = paragraph("ACME"), paragraph("Secret")
    assert read(body, header1=header, header2=header, footer1=footer) == "ACME\n\nBody\n\nMore\n\nSecret"


def test_lists_and_headings_have_the_numbers_that_word_counts(read):
    levels = "".join(
        f'<w:lvl w:ilvl="{level}"><w:start w:val="1"/><w:numFmt w:val="{form}"/><w:lvlText w:val="{text}"/></w:lvl>'
        for level, (form, text) in enumerate([("decimal", "%1."), ("lowerLetter", "%1.%2)"), ("bullet", "o")])
    )
    numbering = (
        f'<w:abstractNum w:abstractNumId="0">{levels}</w:abstractNum>'
        '<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num>'
        '<w:num w:numId="2"><w:abstractNumId w:val="0"/>'
        '<w:lvlOverride w:ilvl="0"><w:startOverride w:val="5"/></w:lvlOverride></w:num>'
    )
    styles = (
        '<w:style w:styleId="Base"><w:pPr><w:numPr><w:numId w:val="1"/></w:numPr></w:pPr></w:style>'
        '<w:style w:styleId="Heading"><w:basedOn w:val="Base"/></w:style>'
    )

    def item(text, level, number="1"):
        place = f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="{number}"/></w:numPr>'
        return paragraph(text, properties=place)

    heading = paragraph("Travel", properties='<w:pStyle w:val="Heading"/>')
    body = heading + item("a", 1) + item("b", 1) + item("dot", 2) + heading + item("c", 1) + item("new", 0, "2")
    expected = ["1. Travel", "1.a) a", "1.b) b", "- dot", "2. Travel", "2.a) c", "5. new"]
    assert read(body, numbering=numbering, styles=styles) == "\n\n".join(expected)


def test_files_of_python_docx_are_read(tmp_path):
    document = docx.Document()
    document.add_heading("Travel", 1)
    document.add_paragraph("Book early.", style="List Bullet")
    document.sections[0].header.paragraphs[0].text = "ACME"
    table = document.add_table(1, 2)
    table.cell(0, 0).merge(table.cell(0, 1)).text = "merged"
    document.save(tmp_path / "a.docx")
    assert read_documents(tmp_path / "a.docx")[0].text == "ACME\n\nTravel\n\n- Book early.\n\nmerged"


def test_file_that_unpacks_to_very_much_is_refused_in_no_time(tmp_path):
    bomb = word_file(tmp_path / "bomb.docx", paragraph("x" * (101 * 2**20)))
    assert bomb.stat().st_size < 2**20
    with pytest.raises(DataError, match=r"bomb\.docx can't be read: it unpacks to more than 100 MB; split it"):
        read_documents(bomb)


def test_page_that_a_file_takes_in_is_read_in_its_place(tmp_path):
    relation = "<Relationship Id='{}' Type='x/{}' Target='{}'/>"
    body = f"{paragraph('before')}<w:altChunk r:id='c'/>{paragraph('after')}"
    parts = {
        "_rels/.rels": f"<x>{relation.format(1, 'officeDocument', 'word/d.xml')}</x>",
        "word/_rels/d.xml.rels": f"<x>{relation.format('c', 'aFChunk', 'c.html')}</x>",
        "word/d.xml": f"<w:document {NAMESPACES}><w:body>{body}</w:body></w:document>",
        "word/c.html": "<p>Travel &amp; costs",
    }
    path = package(tmp_path / "a.docx", parts)
    assert read_documents(path)[0].text == "before\n\nTravel & costs\n\nafter"


def test_entities_are_not_expanded(tmp_path):
    laughs = '<!DOCTYPE x [<!ENTITY a "haha"><!ENTITY b "&a;&a;&a;">]><w:document xmlns:w="w"><w:p><w:r><w:t>ok&b;'
    path = word_file(tmp_path / "a.docx", "")
    package(
        path,
        {
            "_rels/.rels": '<x><Relationship Id="1" Type="x/officeDocument" Target="d.xml"/></x>',
            "d.xml": f"{laughs}</w:t></w:r></w:p></w:document>",
        },
    )
    assert read_documents(path)[0].text == "ok"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 more", "protected by a password, or in a format from before 2007"),
        (b"plain text", "no ZIP file"),
    ],
)
def test_what_is_no_word_file_is_refused_with_the_reason(tmp_path, content, reason):
    (tmp_path / "a.docx").write_bytes(content)
    with pytest.raises(DataError, match=reason):
        read_documents(tmp_path / "a.docx")
