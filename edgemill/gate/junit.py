"""The gate's answer as JUnit XML, which every CI system shows: a test case for each check."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from edgemill.gate.report import GateReport
from edgemill.validate.verdict import Verdict
from edgemill.validate.words import interval_text, worst_groups

# characters that XML 1.0 cannot hold, not even escaped
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render_junit(report: GateReport) -> str:
    """A `testsuites` document. FAIL and INCONCLUSIVE are failures; their type says which."""
    seconds = f"{(report.finished - report.started).total_seconds():.3f}"
    bad = sum(not check.passed for check in report.checks)
    counts = {"tests": str(len(report.checks)), "failures": str(bad), "errors": "0", "skipped": "0", "time": seconds}
    root = ET.Element("testsuites", {"name": "edgemill gate", **counts})
    title = f"{report.name}: {report.model}"
    stamp = report.started.strftime("%Y-%m-%dT%H:%M:%S")
    suite = ET.SubElement(root, "testsuite", {"name": _clean(title), "timestamp": stamp, **counts})
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(report).items():
        ET.SubElement(properties, "property", {"name": name, "value": _clean(value)})
    for check in report.checks:
        _case(suite, check, report)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=False).join(
        ('<?xml version="1.0" encoding="UTF-8"?>\n', "\n")
    )


def _case(suite: ET.Element, check: Verdict, report: GateReport) -> None:
    classname = f"edgemill.gate.{report.name}"
    case = ET.SubElement(suite, "testcase", {"name": _clean(check.gate), "classname": classname, "time": "0"})
    worst = worst_groups(report.facts.groups, check)
    details = f"{interval_text(check)}\nn {check.n}, method: {check.method}\n{check.reason}"
    details += f"\nworst: {worst}" if worst else ""
    if not check.passed:
        failure = ET.SubElement(case, "failure", {"type": str(check.verdict), "message": _clean(check.reason)})
        failure.text = _clean(details)
    ET.SubElement(case, "system-out").text = _clean(details)


def _properties(report: GateReport) -> dict[str, str]:
    return {
        "model.sha256": report.digest,
        "checkpoint.sha256": report.checkpoint_digest,
        "data.sha256": report.data_digest,
        "test samples": str(report.samples),
        "arithmetic": report.source,
        "command": report.command,
    } | {f"version {name}": version for name, version in report.versions.items()}


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
