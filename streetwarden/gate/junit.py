"""The gate's checks as JUnit XML, as test reports are shown by continuous integration (the Ant ``junit`` dialect)."""

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from streetwarden.gate.bounds import Check

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, production 2


def write_junit(file: Path, checks: Sequence[Check]) -> None:
    """Write one suite with one case for each scenario and check."""
    failures = sum(1 for check in checks if check.failure)
    seconds = sum(check.seconds for check in checks)
    counted = {"tests": str(len(checks)), "failures": str(failures), "errors": "0", "time": f"{seconds:.3f}"}
    suites = ET.Element("testsuites")
    suite = ET.SubElement(suites, "testsuite", {"name": "city", **counted})
    for check in checks:
        named = {"classname": f"city.{check.scenario}", "name": check.name, "time": f"{check.seconds:.3f}"}
        case = ET.SubElement(suite, "testcase", named)
        if check.failure:
            text = _NOT_XML.sub("�", check.failure)
            failure = ET.SubElement(case, "failure", {"message": text.partition("\n")[0], "type": check.name})
            failure.text = text
    ET.indent(suites)
    ET.ElementTree(suites).write(file, encoding="utf-8", xml_declaration=True)
