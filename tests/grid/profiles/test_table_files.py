"""Tables of any program: what encoding, separator and decimal sign a file has is told from the file."""

from __future__ import annotations

import contextlib
import gzip
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powergrid.errors import ScenarioError
from powergrid.grid.profiles.profiles import read_profiles
from powergrid.grid.profiles.table_files import find_separator, open_table

TABLE = pd.DataFrame({"time": ["2021-06-01 00:00", "2021-06-01 01:00"], "Häuser": [1.5, 1234.25], "n": [3, 40]})


def read_text(folder: Path, text: str, encoding: str = "utf-8") -> pd.DataFrame:
    file = folder / "t.csv"
    file.write_bytes(text.encode(encoding))
    return open_table(file, "t.csv")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize(("separator", "decimal"), [(",", "."), (";", ","), (";", "."), ("\t", ","), ("|", ".")])
def test_open_text_of_any_kind_gives_the_same_table(
    tmp_path: Path, encoding: str, separator: str, decimal: str
) -> None:
    text = TABLE.to_csv(index=False, sep=separator, decimal=decimal, lineterminator="\r\n")
    pd.testing.assert_frame_equal(read_text(tmp_path, text, encoding), TABLE, check_dtype=False)


def test_open_compressed_text(tmp_path: Path) -> None:
    file = tmp_path / "t.csv.gz"
    with gzip.open(file, "wb") as out:
        out.write(TABLE.to_csv(index=False).encode("cp1252"))
    pd.testing.assert_frame_equal(open_table(file, "t"), TABLE, check_dtype=False)


def test_open_excel(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl")
    TABLE.to_excel(tmp_path / "t.xlsx", index=False)
    pd.testing.assert_frame_equal(open_table(tmp_path / "t.xlsx", "t"), TABLE, check_dtype=False)


def test_open_excel_without_openpyxl_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "t.xlsx").touch()
    with pytest.raises(ScenarioError, match="pip install openpyxl, or save the sheet as CSV"):
        open_table(tmp_path / "t.xlsx", "t")


@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02\x03", b"PK\x03\x04", b"\xff\xfe\x00"])
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet", "t.xlsx"])
def test_open_what_is_no_table_is_one_error(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ScenarioError):
        read_profiles(tmp_path / name)


def test_open_thousands_are_numbers_whichever_sign_parts_them(tmp_path: Path) -> None:
    german = read_text(tmp_path, "t;kw;day\na;1.234,5;01.02.2024\nb;17,0;02.02.2024\n")
    assert german.kw.tolist() == [1234.5, 17.0]
    assert german.day.tolist() == ["01.02.2024", "02.02.2024"]
    assert read_text(tmp_path, 't,kw\na,"1,234.5"\nb,17.0\n').kw.tolist() == [1234.5, 17.0]


def test_open_decimal_sign_that_may_be_either_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"'1,234' may be 1234 or 1\.234, and no other number tells"):
        read_text(tmp_path, "t;kw\na;1,234\nb;5,678\n")
    (tmp_path / "t.csv").write_text("t;kw\na;1,234\nb;5,678\n")
    assert open_table(tmp_path / "t.csv", "t", decimal=",").kw.tolist() == [1.234, 5.678]
    assert open_table(tmp_path / "t.csv", "t", decimal=".").kw.tolist() == [1234, 5678]
    with pytest.raises(ScenarioError, match=r"two decimal signs, as '1,5' and '2\.25'"):
        read_text(tmp_path, "t;kw\na;1,5\nb;2.25\n")


@given(st.binary(max_size=300))
def test_open_any_bytes_is_a_table_or_a_typed_error(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "t.csv"
        file.write_bytes(content)
        with contextlib.suppress(ScenarioError):
            assert len(open_table(file, "t").columns)


@given(st.lists(st.text("abc15", min_size=1), min_size=2, max_size=5), st.sampled_from(",;\t|"))
def test_find_separator_any_head(head: list[str], separator: str) -> None:
    assert find_separator("\n".join([separator.join(head)] * 3)) == separator
