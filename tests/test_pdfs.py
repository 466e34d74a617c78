"""PDFs: their words in one piece, whoever may open them."""

from __future__ import annotations

import base64
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject
from weft_documents import pdf

from weft.documents import read_documents
from weft.errors import DataError
from weft.formats.hyphens import undivided

# "Tulips bloom in April", encrypted with AES-256 by pypdf: for all to open, and with a password.
OPEN = (
    "c-oCrON(4Z6pjl8FRolfva8LwGq>K4&<rH=P@}Pj={Nx;i&IsnCM`34hugQqM9`lg>fW^vkhpRsZd|AcW|4)PAfgB&xRtmNJ-"
    "6r8*jaeF1$9oH$9GPBbyl|4H=h$1RkiZ-FZb?Of^pWwH>$y)s;}QUKvu6o2YbzKRd2yAPMIWw?P_(k!b$E8<&wkPuBz9X*`#Bls$"
    "UxCDSMr%-jUs0a8-"
    "|Vt?F%@HnTQSvi@YVp)m7}VEQCE{q;4>W4O{BQfz*a&zI($Nm@61v@Me35nKW@=}4S1^B?$n2}7T+sz<Zf&Bb0xMO=X?&XLqF;NE"
    "TQ#t9apn1v`W<7BtH#XRrNr(KJ%U;T6S^Cv&uKYu}-e|Ybi8^3=&8~*U){SUrZk3IYLE3CWv$5-"
    "E7`11O>2Rom9{Qft0KN?<o_{CFCJh<`RTkkxtzy0a)&(8h%*Ke0r*Is-2@a~88yT9)K-"
    "RC_HeT={^AlPb~JWJTJf%g&>*eq<(JbCAMipF`xbJWt7B4R;<UX^IDsFKkHqdh_>iR-NF>OzffA;S(cbWO~jRx1tdx0see2kT^zb"
    "Y0`Ujxf}t4kj7eT-8GYBunI6lz<+SRod_(0i{bEv+-zjiUET{&9f3HRE`FG@g?d=asU7kd=!vF4Avw%MkiA!+6adtJEFy_Y>-"
    "?Cp>PLW@e)NYT0<#TCL^@>s7o@D`(!n`z*BMwly{I-D8P-BLPl#fm_$%1h%w$`&`N-"
    "pI_VIQvaD^+IXUX`@$T}hyR~t<r(C_>q~QThdZTNszPvHoQKyYk@`S#lZhw;<1?YwLOc-vkfssXV5eXDzo2Yp2y@jM=0h2Xh1`iQ"
    "<a@?6H5}+4KbAwvSB!#nmBPdKnX#_~>mar*AO&1-rfsg~IQiH{44fQCa;!b!gvoe7Tu8I)SS(hlx7PkBJ5~&5wI1UM-"
    "iUcmCLgdM=*y1t>xk#167E8sMulVW5tTD>4!cKL99?kq@a;CF-"
    "NhhRQ(n+)ItK_myKf;b+oawq2#(UV#IXxP`i3GXcZW<a}M`Po~Noklp-"
    "mlZ383d(F@t(M-qRGS}@TLUMlOQ(dpjZEo35}<XNowyLbj+R1qiF|iH*cH}+*d0r8^g`&U#Z`X9{"
)
LOCKED = (
    "c-oCry^CZ;5Jwa7WpXB$HR=Wi-s|rV90u=pW;oGfh8;ZvJ&yjU-kW3hz2(iD`@)OF-"
    "~vSi%>@5|I}kHdL195L5EB!@1v3>q5CaA4&3+Be1wLLwRdrSUeqCK%8<WB41$Isp8$Ta>_kF<#C3U!7^m;}4+U-"
    "3c<)&}_PQ6`}6Tb~}!qH)?==Te#Qs>Cm0+xP7xmho&maw9HWtQgTO(MELa%Ck{JTkN>w_si`nuuWC&Zx#TOMwx2432+!3DV48sBd"
    "9zdX6raq?B-6S30&0VBjHLBvZAh&WZXDeYwV=!z;?^BD71jGvXmG_&F?@low&=2DG#2SF)&;EU!Yf-CiS>cKh?T0l!<^JM+fDCtv"
    ";f*i*mH_07BcKmPLVllRYlw*STBdw2itzdL&FkB@));l;t1SI_J}49}kZ>%DItR3F~_=!3Ve4&Hf5J^#dSpFe!&!Kd&4^Y*U?Pv8"
    "G~T-"
    "@t$k5V5o&?^ikO`R4I8qyO|1I?6i8EvpeX6Y%_#u}4UWXuUpvrtm#08FdwVxrmx?UhiD=H&Y;XEZAamx;n_BKqXCT%kN6k~`_N;f"
    "~{V&30PkP)=K4CEui?9FtyBT4oNMdn=UIntP!^I;N}xWwJ2BDxZP?Yc05(xJ@a_D578v6;R126}%TIL<5lpVKR>(P@u_!!nSyw^t"
    "dz1$LK{+21I0zQtLfWf>|GuOOTYvNoJR&mDW0zeR76650a$_*)h)})&rC_DP}O*>g3TML5)flQ8q`*o}9MnNIJi0uMKZ>EmsceIN"
    "pP*bGk&z^TX+7aZ)J3kK1?J?vBV|f=+2pmGO}DLIUFwQgV@H8)B9mTmZ_b;*v_K0!Ky`S+k&X&@u?Fv5G+&P(h`x5SYdqCWVcTXB"
    "JXYih<B3WU$&vDNQs1Yb|7oTBDY9G6CW63L;i4n22d6(Cp$%v|uq5s6+4|0wO7!qkycL;)c=HR=L$cE-0}DJ^6@M*i<Bw6C1-"
    "vv)rjpZCb9`7#C|cuGV7(U$@Ce_#ur`Tif{A4m8W2p3d$7QZBdZ8pqb**m$|hHPJ`%00&JEOpGeUz@(!Jdr9Io3CdXx0W3t<|35A"
    "`o`zLyZtu0k9M7Y9>zj62IL4?gHa3RiQSmPdV2{-"
)


def lines(path, *pages):
    """A PDF whose pages have some lines of text each."""
    writer = PdfWriter()
    for page_lines in pages:
        page = writer.add_blank_page(400, 400)
        font = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica", "/Encoding": "/WinAnsiEncoding"}
        fonts = DictionaryObject({NameObject(key): NameObject(value) for key, value in font.items()})
        page[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F"): fonts})}
        )
        stream = DecodedStreamObject()
        shown = " T* ".join(f"({line}) Tj" for line in page_lines)
        stream.set_data(f"BT /F 12 Tf 14 TL 20 350 Td {shown} ET".encode("cp1252"))
        page[NameObject("/Contents")] = writer._add_object(stream)
    writer.write(path)
    return path


def test_words_divided_at_line_ends_are_whole(tmp_path):
    path = lines(
        tmp_path / "a.pdf", ["Travel must be ap-", "proved by the direc-", "tor of the well-known of-"], ["fice."]
    )
    text = read_documents(path)[0].text
    assert " ".join(text.split()) == "Travel must be approved by the director of the well-known office."


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("ap-\nproved", "approved"),
        ("ap\u2010\nproved", "approved"),
        ("ap\u00ad\nproved", "approved"),
        ("inter-\nna-\ntional", "international"),
        ("a well-\nknown office", "a well-known office"),
        ("a co-op; the co-\nop", "a co-op; the co-op"),
        ("Franco-\nPrussian", "Franco-Prussian"),
        ("2019-\n2020, ISO-\n9001, a 16-\nyear lease", "2019-2020, ISO-9001, a 16-year lease"),
        ("state-of-the-\nart", "state-of-the-art"),
        ("x-\nrays", "x-rays"),
        ("pre-\nand postwar, Ein-\nund Ausgang", "pre- and postwar, Ein- und Ausgang"),
        ("see example.org/some-\npath", "see example.org/some-path"),
        ("a dash -\nhere", "a dash -\nhere"),
        ("- one\n- two", "- one\n- two"),
        ("Annex-\n\nThe next", "Annex-\n\nThe next"),
    ],
)
def test_hyphen_at_a_line_end_goes_where_it_divides_a_word_and_stays_where_it_belongs_to_one(text, whole):
    assert undivided(text) == whole


@pytest.mark.parametrize("text", ["x" * 300_000 + "-" * 300_000, "ap-\nproved " * 30_000, "-\n" * 300_000 + "x"])
def test_time_for_dividing_grows_with_the_text_alone(text):
    assert len(undivided(text)) <= len(text)


def test_encrypted_file_that_opens_without_a_password_is_read(tmp_path):
    (tmp_path / "a.pdf").write_bytes(zlib.decompress(base64.b85decode(OPEN)))
    assert read_documents(tmp_path / "a.pdf")[0].text == "Tulips bloom in April"


def test_file_that_needs_a_password_says_so(tmp_path):
    (tmp_path / "a.pdf").write_bytes(zlib.decompress(base64.b85decode(LOCKED)))
    with pytest.raises(DataError, match=r"a\.pdf can't be read: it opens with a password only; save it without one\."):
        read_documents(tmp_path / "a.pdf")


def test_pages_without_text_are_told(tmp_path):
    (document,) = read_documents(lines(tmp_path / "a.pdf", ["One"], [], ["Three"]))
    assert document.text == "One\n\nThree"
    assert document.notes == ("has no text on page 2 (scanned, or empty)",)


def test_threads_may_read_at_once(tmp_path):
    for number in range(8):
        pdf(tmp_path / f"{number}.pdf", f"Number {number}")
    with ThreadPoolExecutor(8) as pool:
        read = pool.map(read_documents, (tmp_path / f"{number}.pdf" for number in range(8)))
        assert [document.text for (document,) in read] == [f"Number {number}" for number in range(8)]
