"""Other kinds of files: spreadsheets, presentations, OpenDocument, books, mails, rich text."""

from __future__ import annotations

import datetime
from email.message import EmailMessage

import openpyxl
import pytest
from office_files import package
from pptx import Presentation
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE

from weft.documents import READERS, read_documents
from weft.errors import DataError
from weft.formats.numerals import numeral

OPEN_DOCUMENT = " ".join(
    f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
    for name in ("office", "text", "table", "style", "draw")
)


def read(path):
    """The parts of a file, by name."""
    return {document.part: document.text for document in read_documents(path)}


def test_rows_of_a_workbook_are_records_with_the_values_that_it_shows(tmp_path):
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Prices"
    sheet.append(["Price list"])
    sheet.append([])
    sheet.append(["name", "price", "since", "share"])
    sheet.append(["Apple", 12, datetime.date(2024, 5, 1), 0.15])
    sheet.append(["Pear", 1.5, datetime.datetime(2024, 5, 1, 10, 30), 0.2])
    sheet["B4"].number_format, sheet["D4"].number_format = "[$€-2] #,##0.00", "0%"
    sheet["D6"] = "=1+1"
    book.create_sheet("Secret").sheet_state = "hidden"
    form = book.create_sheet("Form")
    for row in (["Name:", "Anna"], [], ["Remark"], ["All is well"]):
        form.append(row)
    questions = book.create_sheet("FAQ")
    questions.append(["Question", "Answer", "topic"])
    questions.append(["Who feeds the cat?", "Anna", "animals"])
    book.save(tmp_path / "a.xlsx")
    documents = read_documents(tmp_path / "a.xlsx")
    assert {one.part: one.text for one in documents} == {
        "Prices": "Price list",
        "Prices row 4": "name: Apple\nprice: €12\nsince: 2024-05-01\nshare: 15%",
        "Prices row 5": "name: Pear\nprice: 1.5\nsince: 2024-05-01 10:30\nshare: 0.2",
        "Form": "Name:\tAnna\nRemark\nAll is well",
        "FAQ row 2": "Who feeds the cat?\nAnna",
    }
    assert documents[-1].metadata == {"topic": "animals"}
    assert documents[0].notes == (
        "has 1 hidden sheet, left out",
        "has a formula without a value, left out; open and save it in a spreadsheet program",
    )


def test_cell_far_away_costs_nothing(tmp_path):
    book = openpyxl.Workbook()
    book.active["A1"] = "near"
    book.active.cell(50_000, 16_000).value = "far"
    book.save(tmp_path / "a.xlsx")
    assert read(tmp_path / "a.xlsx") == {"Sheet": "near\nfar"}


def test_slides_are_read_with_tables_groups_charts_and_notes(tmp_path):
    show = Presentation()
    slide = show.slides.add_slide(show.slide_layouts[1])
    slide.shapes.title.text, slide.placeholders[1].text = "Travel", "First\nSecond"
    slide.notes_slide.notes_text_frame.text = "Smile"
    slide = show.slides.add_slide(show.slide_layouts[6])
    table = slide.shapes.add_table(2, 2, 0, 0, 999, 999).table
    table.cell(0, 0).merge(table.cell(0, 1))
    table.cell(0, 0).text, table.cell(1, 0).text, table.cell(1, 1).text = "Head", "A", "B"
    slide.shapes.add_group_shape().shapes.add_textbox(0, 0, 9, 9).text_frame.text = "Grouped"
    data = CategoryChartData()
    data.categories = ["East", "West"]
    data.add_series("Sales", (1.5, 2))
    slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, 0, 0, 999, 999, data)
    show.save(tmp_path / "a.pptx")
    assert read(tmp_path / "a.pptx") == {
        "slide 1": "Travel\n\nFirst\n\nSecond\n\nNotes: Smile",
        "slide 2": "Head\nA\tB\n\nGrouped\n\n\tSales\nEast\t1.5\nWest\t2",
    }


def open_document(path, body, styles=""):
    """A file of OpenDocument with some body."""
    parts = {"content": f"<office:body>{body}</office:body>", "styles": styles}
    return package(path, {f"{name}.xml": f"<office:x {OPEN_DOCUMENT}>{one}</office:x>" for name, one in parts.items()})


def test_open_document_text_is_read_as_it_is_printed(tmp_path):
    body = (
        "<text:tracked-changes><text:p>deleted</text:p></text:tracked-changes>"
        "<text:h>Travel</text:h><text:p>By <text:span>train</text:span> or<text:s text:c='2'/>bus<text:line-break/>only"
        "<text:note><text:note-citation>1</text:note-citation><text:note-body><text:p>No planes</text:p>"
        "</text:note-body></text:note>.</text:p>"
        "<text:list text:style-name='N'><text:list-item><text:p>one</text:p></text:list-item><text:list-item>"
        "<text:p>two</text:p></text:list-item></text:list>"
        "<table:table><table:table-row><table:table-cell><text:p>a</text:p></table:table-cell><table:table-cell/>"
        "<table:table-cell><text:p>c</text:p></table:table-cell></table:table-row></table:table>"
        "<text:p>x<draw:frame><draw:text-box><text:p>boxed</text:p></draw:text-box></draw:frame></text:p>"
    )
    styles = (
        "<text:list-style style:name='N'><text:list-level-style-number text:level='1' style:num-format='i'/>"
        "</text:list-style><style:header><text:p>ACME</text:p></style:header>"
    )
    assert read(open_document(tmp_path / "a.odt", body, styles)) == {
        "": "ACME\n\nTravel\n\nBy train or  bus\nonly[1].\n\n[1] No planes\n\ni. one\n\nii. two\n\na\t\tc\n\nx\n\nboxed"
    }


def test_open_document_sheet_that_is_empty_to_its_edges_is_read(tmp_path):
    def row(*cells):
        return "".join(f"<table:table-cell><text:p>{one}</text:p></table:table-cell>" for one in cells)

    edge = "<table:table-cell table:number-columns-repeated='16000'/>"
    rows = [row("name", "price") + edge, row("Apple", "12") + edge]
    below = f"<table:table-row table:number-rows-repeated='1048000'>{edge}</table:table-row>"
    rows = [f"<table:table-row>{one}</table:table-row>" for one in rows]
    sheet = f"<table:table table:name='Fruit'>{''.join(rows)}{below}</table:table>"
    assert read(open_document(tmp_path / "a.ods", sheet)) == {"Fruit row 2": "name: Apple\nprice: 12"}


def test_book_is_read_in_the_order_of_its_pages(tmp_path):
    pages = "<manifest><item id='b' href='b%20c.xhtml'/><item id='a' href='a.xhtml'/></manifest>"
    order = "<spine><itemref idref='a'/><itemref idref='b'/></spine>"
    parts = {
        "META-INF/container.xml": "<container><rootfiles><rootfile full-path='in/book.opf'/></rootfiles></container>",
        "in/book.opf": f"<package><metadata><title>My book</title></metadata>{pages}{order}</package>",
        "in/a.xhtml": "<html><body><h1>One</h1><p>café</p></body></html>",
        "in/b c.xhtml": "<html><body><p>Two</p></body></html>",
    }
    assert read(package(tmp_path / "a.epub", parts)) == {"": "My book\n\nOne\n\ncafé\n\nTwo"}
    parts["META-INF/encryption.xml"] = (
        "<x><EncryptionMethod Algorithm='http://www.w3.org/2001/04/xmlenc#aes128-cbc'/></x>"
    )
    with pytest.raises(DataError, match=r"b\.epub can't be read: it is protected against copying"):
        read(package(tmp_path / "b.epub", parts))


def test_mail_is_read_once_with_what_is_attached_to_it(tmp_path):
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = "Grüße", "Anna <a@example.org>", "b@example.org"
    mail.set_content("See you soon.\n")
    mail.add_alternative("<p>See you <b>soon</b>.</p>", subtype="html")
    mail.add_attachment("Bring the key.", filename="list.txt")
    mail.add_attachment(b"...", maintype="image", subtype="png", filename="map.png")
    mail.add_attachment(b"%PDF broken", maintype="application", subtype="pdf", filename="plan.pdf")
    (tmp_path / "a.eml").write_bytes(bytes(mail))
    first, attached = read_documents(tmp_path / "a.eml")
    assert first.text == "Subject: Grüße\nFrom: Anna <a@example.org>\nTo: b@example.org\n\nSee you soon."
    assert (attached.part, attached.text.strip()) == ("list.txt", "Bring the key.")
    assert first.notes[0] == "has the attachment map.png, which is not read"
    assert "plan.pdf can't be read" in first.notes[1]


def test_rich_text_is_read(tmp_path):
    (tmp_path / "a.rtf").write_text(r"{\rtf1\ansi\ansicpg1252 Hello \b bold\b0  caf\'e9 \u8364? end.\par Two\par}")
    assert read(tmp_path / "a.rtf") == {"": "Hello bold café € end.\nTwo"}


@pytest.mark.parametrize("ending", [".docx", ".xlsx", ".pptx", ".odt", ".ods", ".epub", ".pdf", ".rtf"])
def test_damaged_file_is_named_with_the_reason(tmp_path, ending):
    (tmp_path / f"a{ending}").write_bytes(b"PK\3\4 nothing more")
    with pytest.raises(DataError, match=rf"a\{ending} can't be read: it is .*\.$"):
        read_documents(tmp_path / f"a{ending}")


@pytest.mark.parametrize("ending", [".xlsx", ".pptx", ".odt", ".ods", ".epub"])
def test_file_that_unpacks_to_very_much_is_refused(tmp_path, ending):
    names = ["xl/worksheets/sheet1.xml", "_rels/.rels", "content.xml", "META-INF/container.xml"]
    path = package(tmp_path / f"a{ending}", dict.fromkeys(names, b" " * (101 * 2**20)))
    with pytest.raises(DataError, match="unpacks to more than 100 MB"):
        read_documents(path)


@pytest.mark.parametrize(("ending", "advice"), [(".doc", "save it as .docx"), (".msg", "save each mail as .eml")])
def test_kind_that_is_not_read_says_what_to_do(tmp_path, ending, advice):
    (tmp_path / f"a{ending}").write_bytes(b"x")
    with pytest.raises(DataError, match=f"files that end in {ending} are not read; {advice}"):
        read_documents(tmp_path / f"a{ending}")
    assert ending not in READERS


def test_numerals_are_those_of_word_processors():
    written = {"decimalZero": "04", "lowerLetter": "d", "upperLetter": "D", "lowerRoman": "iv", "upperRoman": "IV"}
    assert {kind: numeral(4, kind) for kind in written} == written
    assert (numeral(28, "lowerLetter"), numeral(1999, "upperRoman"), numeral(0, "lowerRoman")) == ("bb", "MCMXCIX", "0")
