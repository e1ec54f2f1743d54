"""Tests of `vitzoo doctor`, the report on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vit_zoo.cli.doctor import doctor_report
from vit_zoo.parity import cpu


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("fpu sse4_2 avx2", "Old CPU: AVX2"),
        ("avx2 avx512f avx512_vnni amx_int8", "Old CPU: AVX2, AVX512, VNNI, AMX"),
        ("avx2 avx_vnni", "Old CPU: AVX2, VNNI"),
        ("sse2", "Old CPU: no AVX2"),
    ],
)
def test_doctor_reports_the_cpu(folder, monkeypatch, cli, flags, told):
    Path("cpuinfo").write_text(f"processor : 0\nmodel name : Old CPU\nflags : {flags}\n\nprocessor : 1\nflags : none\n")
    monkeypatch.setattr(cpu, "CPUINFO", Path("cpuinfo"))
    for cut, words in ((True, "in 16 bits on this CPU"), (False, "in 32 bits on this CPU")):
        monkeypatch.setattr(cpu, "saturates", lambda cut=cut: cut)
        result = cli("doctor", "--json")
        assert result.code == 0
        document = json.loads(result.out)
        assert document["cpu"] == told
        assert words in document["int8"]
    monkeypatch.setattr(cpu, "CPUINFO", Path("nothing"))
    assert doctor_report()["cpu"] == "not reported by this system"


@pytest.mark.parametrize(("name", "package"), [("vit-zoo", "elsewhere"), ("vit_zoo", "vit_zoo"), ("other-project", "vit_zoo")])
def test_doctor_finds_a_project_that_is_taken_for_this_one(folder, monkeypatch, cli, name, package):
    assert "conflict" not in json.loads(cli("doctor", "--json").out)
    info = folder / f"{name.replace('-', '_')}-0.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.3\n")
    (info / "top_level.txt").write_text(f"{package}\n")
    monkeypatch.syspath_prepend(folder)
    code, out, err = cli("doctor", "--json")
    assert code == 0
    other = "other-project" if name == "other-project" else "vit-zoo"
    assert f"run `pip uninstall {other}`" in json.loads(out)["conflict"]
    assert err.startswith(f"vitzoo: warning: the installed distribution {other} is another project")
