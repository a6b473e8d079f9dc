"""docs/targets.md holds the catalog of today."""

import importlib.util
from pathlib import Path

from edgemill.targets import target_names
from edgemill.toolchains import toolchain_names

DOCS = Path(__file__).parents[2] / "docs"


def test_tables_are_those_of_the_catalog():
    spec = importlib.util.spec_from_file_location("generate_target_reference", DOCS / "generate_target_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (DOCS / "targets.md").read_text(encoding="utf-8")
    assert module.with_tables(text) == text, "run python docs/generate_target_reference.py"
    for name in (*target_names(), *toolchain_names()):
        assert f"| `{name}` |" in text
