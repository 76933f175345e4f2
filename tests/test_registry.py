"""The file system is the list of plug-ins."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from robolearn import registry
from robolearn.errors import MissingDependency, UnknownName


@pytest.fixture
def plugs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Returns the name of a package with plug-ins: good, needy (wants an SDK), typo (a broken import of ours) and a folder."""
    folder = tmp_path / "plugs_for_test"
    (folder / "boxed").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "boxed" / "__init__.py").touch()
    (folder / "_machinery.py").touch()
    (folder / "good.py").write_text("VALUE = 1\n")
    (folder / "needy.py").write_text("import an_sdk_nobody_has\n")
    (folder / "typo.py").write_text("import robolearn.no_such_module\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder.name
    for name in [name for name in sys.modules if name.startswith(folder.name)]:
        del sys.modules[name]


def test_a_name_is_a_file_without_an_underscore(plugs: str) -> None:
    assert registry.names(plugs) == ("boxed", "good", "needy", "typo")


def test_a_plug_in_is_imported_when_it_is_asked_for(plugs: str) -> None:
    assert f"{plugs}.good" not in sys.modules
    assert registry.load(plugs, "good").VALUE == 1


def test_a_missing_sdk_breaks_one_plug_in_and_says_what_to_install(plugs: str) -> None:
    with pytest.raises(MissingDependency, match="pip install an_sdk_nobody_has"):
        registry.load(plugs, "needy")
    assert registry.load(plugs, "good")


def test_a_broken_import_of_our_own_is_not_called_a_missing_sdk(plugs: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"robolearn\.no_such_module"):
        registry.load(plugs, "typo")


def test_an_unknown_name_gets_the_nearest_and_the_list(plugs: str) -> None:
    with pytest.raises(UnknownName, match=r"unknown gadget 'god'; did you mean 'good'\? \(known: boxed, good, needy, typo\)"):
        registry.load(plugs, "god", what="gadget")


def test_machinery_is_no_plug_in(plugs: str) -> None:
    with pytest.raises(UnknownName):
        registry.load(plugs, "_machinery")
