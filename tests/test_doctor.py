import json
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest

from svilm import doctor
from svilm.doctor import Answer, Finding, Report, describe, examine, probe

REQUIRES = ["torch>=2.6", "av>=14", 'tensorboard>=2.17; extra == "log"', 'colorama; sys_platform == "win32"']


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_the_whole_examination_finds_that_this_machine_can_train(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.PROBES, "transformers", "")  # its import alone takes longer than all other tests here
    report = examine()
    assert report.ok, describe(report)
    assert {"video", "words", "machine", "weights"} <= set(report.topics)
    assert by_name(report.findings)["libx264"].state == "ok"
    assert "h264" in by_name(report.findings)["PyAV"].detail
    assert describe(report).endswith("training can run here")


def test_the_doctor_itself_loads_no_heavy_library() -> None:
    code = "import sys, svilm.doctor; print(sorted({'torch', 'transformers', 'av', 'numpy'} & set(sys.modules)))"
    assert probe(code) == Answer(True, "[]")


def test_every_extra_of_the_package_is_explained() -> None:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8")
    section = text.split("[project.optional-dependencies]\n")[1].split("\n[")[0]
    names = [line.partition(" = ")[0] for line in section.splitlines() if " = [" in line]
    assert sorted(names) == sorted(doctor.EXTRAS)


def test_a_requirement_is_there_too_old_or_missing() -> None:
    good, old = doctor.packages(REQUIRES, {"torch": "2.13.0+cpu", "av": "13.1"})
    assert good == Finding("torch", "ok", "2.13.0+cpu")
    assert old == Finding("av", "clash", "13.1, needs >=14", 'pip install "av>=14"', breaks=True)
    missing = doctor.packages(REQUIRES, {"torch": "2.13.0"})[1]
    assert missing == Finding("av", "missing", "needs >=14", 'pip install "av>=14"', breaks=True)


def test_running_from_sources_is_said_and_is_no_obstacle() -> None:
    (finding,) = doctor.packages(None, {})
    assert (finding.state, finding.breaks) == ("missing", False)


def test_an_extra_lists_what_it_lacks() -> None:
    assert doctor.extras(REQUIRES, {"tensorboard": "2.20"})[0].state == "ok"
    (finding,) = doctor.extras(REQUIRES, {"tensorboard": "2.3"})
    assert (finding.name, finding.state, finding.breaks) == ("log", "missing", False)
    assert "lacks tensorboard" in finding.detail
    assert finding.remedy == 'pip install -e ".[log]"'


def test_names_of_packages_are_compared_as_the_index_compares_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda name: ["huggingface_hub>=0.34"])
    requires, versions = doctor._metadata()
    assert [finding.state for finding in doctor.packages(requires, versions)] == ["ok"]


def test_a_broken_torchvision_is_found_and_blamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = "raise RuntimeError('operator torchvision::nms does not exist')"
    for name, code in {"torchvision": broken, "transformers": "import torchvision"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    answers = {name: probe(doctor.PROBES[name]) for name in ("torchvision", "transformers")}
    found = by_name(doctor.clashes(answers))
    assert found["torchvision"].state == "clash"
    assert "operator torchvision::nms does not exist" in found["torchvision"].detail
    assert found["transformers models"].breaks
    assert found["transformers models"].remedy == "pip uninstall torchvision"


def test_packages_that_work_do_not_clash() -> None:
    assert not doctor.clashes({"torchvision": Answer(True, ""), "transformers": Answer(True, "")})


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("print('a'); print('b')", Answer(True, "b")),
        ("", Answer(True, "")),
        ("import no_such_thing", Answer(False, "ModuleNotFoundError: No module named 'no_such_thing'")),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", Answer(False, "ended by signal 11")),
    ],
)
def test_a_probe_answers_with_its_last_line(code: str, answer: Answer) -> None:
    assert probe(code) == answer


def test_a_probe_that_hangs_is_given_up() -> None:
    assert probe("import time; time.sleep(60)", seconds=0.2) == Answer(False, "no answer within 0.2 s")


def test_video_without_h264_breaks_training_and_without_x264_only_the_drawn_world() -> None:
    def facts(reads: list[str], x264: bool) -> Answer:
        return Answer(True, json.dumps({"avcodec": "62.28", "reads": reads, "x264": x264}))

    assert by_name(doctor.video(facts(["vp9"], True)))["PyAV"].breaks
    found = by_name(doctor.video(facts(["h264"], False)))
    assert (found["PyAV"].state, found["libx264"].state) == ("ok", "missing")
    assert not any(finding.breaks for finding in found.values())
    assert doctor.video(Answer(False, "ImportError: libx"))[0].breaks
    assert doctor.video(None)[0].breaks


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("spacy:en_core_web_sm", "by spaCy's pipeline en_core_web_sm"),
        ("textblob+repairs", "by the offline chunker"),
    ],
)
def test_the_extractor_of_nouns_is_named(text: str, expected: str) -> None:
    (finding,) = doctor.words(Answer(True, text))
    assert finding.state == "ok"
    assert finding.detail.startswith(expected)


def test_gpus_are_listed_with_memory_and_bf16() -> None:
    gpus = [["NVIDIA H100", 80 * 2**30, True], ["Tesla V100", 16 * 2**30, False]]
    found = doctor.devices(Answer(True, json.dumps({"cuda": "13.0", "gpus": gpus, "mps": False})))
    assert [finding.detail for finding in found] == [
        "NVIDIA H100, 80 GiB, bf16",
        "Tesla V100, 16 GiB, no bf16",
    ]
    assert doctor.devices(Answer(False, "OSError: libcudart.so.13"))[0].breaks


@pytest.mark.parametrize(("cuda", "why"), [(None, "this torch is a CPU build"), ("13.0", "does not see it")])
def test_a_gpu_that_torch_does_not_see_is_a_clash(cuda: str | None, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Answer(True, json.dumps({"cuda": cuda, "gpus": [], "mps": False}))
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert doctor.devices(answer)[0].state == "missing"
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    (finding,) = doctor.devices(answer)
    assert (finding.state, finding.breaks) == ("clash", False)
    assert why in finding.detail


@pytest.mark.parametrize(
    ("files", "cores", "memory"),
    [
        ({}, None, None),
        ({"proc/meminfo": "MemTotal:  2048 kB"}, None, 2**21),
        ({"sys/fs/cgroup/cpu.max": "150000 100000", "sys/fs/cgroup/memory.max": "1024"}, 1.5, 1024),
        ({"sys/fs/cgroup/cpu.max": "max 100000", "sys/fs/cgroup/memory.max": "max"}, None, None),
        (
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
                "proc/meminfo": "MemTotal:  1 kB",
            },
            0.5,
            1024,
        ),
        (
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "1"},
            None,
            None,
        ),
    ],
)
def test_limits_of_containers_are_read(
    files: dict[str, str], cores: float | None, memory: int | None, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert doctor._cpu_quota(tmp_path / "sys/fs/cgroup") == cores
    assert doctor._memory_bytes(tmp_path) == memory


def test_more_threads_than_the_container_may_use_is_a_clash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = tmp_path / "sys/fs/cgroup"
    groups.mkdir(parents=True)
    (groups / "cpu.max").write_text("50000 100000")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert by_name(doctor.machine(tmp_path))["processor"].remedy == "export OMP_NUM_THREADS=1"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert by_name(doctor.machine(tmp_path))["processor"].state == "ok"


def test_torch_compile_needs_a_compiler_and_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert "no C++ compiler" in doctor.compiler().detail
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    assert doctor.compiler().state == "missing"
    (tmp_path / "Python.h").touch()
    assert doctor.compiler() == Finding("torch.compile", "ok", "with g++")


def test_weights_in_the_cache_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    name = "google-bert/bert-base-uncased"
    assert by_name(doctor.weights())[name].remedy == f"hf download {name}"
    snapshot = tmp_path / "models--google-bert--bert-base-uncased" / "snapshots" / "0a1b"
    snapshot.mkdir(parents=True)
    assert by_name(doctor.weights())[name].state == "missing"  # an empty folder is left by a broken download
    (snapshot / "config.json").touch()
    assert by_name(doctor.weights())[name].state == "ok"


def test_the_report_is_aligned_and_ends_with_a_verdict() -> None:
    lame = Finding("torch", "clash", "1.0, needs >=2.6", 'pip install "torch>=2.6"', breaks=True)
    report = Report(
        "svilm", {"packages": [Finding("pillow", "ok", "12"), lame], "video": [Finding("x", "missing", "")]}
    )
    assert not report.ok
    assert describe(report).splitlines() == [
        "svilm",
        "",
        "packages",
        "  ok       pillow  12",
        "  clash    torch   1.0, needs >=2.6",
        '                   -> pip install "torch>=2.6"',
        "",
        "video",
        "  missing  x",
        "",
        "training is broken by: torch",
    ]
