"""What is installed, what is missing, what clashes, and what the machine can do: `svilm doctor`.

Libraries are tried in processes of their own: a broken one cannot take the doctor along, and the checks run
side by side.
"""

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from svilm.version import __version__

EXTRAS = {
    "nlp": "noun phrases by spaCy's parser, as in the paper",
    "log": "TensorBoard curves of a training run",
    "search": "vectors of an index in LanceDB or on a Qdrant server",
    "app": "the page of an index: svilm app",
    "dev": "the tests and checks of this repository",
}
"""What each extra of the package gives."""

UNUSED = {
    "torchvision": "builds of another torch break transformers",
    "torchcodec": "builds for CUDA do not import beside a CPU torch",
}
"""Packages that svilm does not use, and why a broken one of them matters."""

WEIGHTS = {
    "google/vivit-b-16x2-kinetics400": "video encoder of the paper's recipe (MIT)",
    "google-bert/bert-base-uncased": "text encoder of the paper's recipe (Apache-2.0)",
    "MCG-NJU/videomae-base-finetuned-kinetics": "the other video encoder (CC-BY-NC-4.0)",
}
"""Published weights that recipes start from."""

GIB = 2**30
INSTALL = "brew install" if sys.platform == "darwin" else "apt install"


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    state: Literal["ok", "missing", "clash"]
    """A clash is something present that does not work as it is."""
    detail: str
    remedy: str = ""
    """A command, or what to do in words."""
    breaks: bool = False
    """No training on this machine before it is put right."""


@dataclass(frozen=True)
class Report:
    """Everything found, by topic."""

    title: str
    topics: Mapping[str, list[Finding]]

    @property
    def findings(self) -> list[Finding]:
        """All topics in one list."""
        return [finding for findings in self.topics.values() for finding in findings]

    @property
    def ok(self) -> bool:
        """Whether a model can be trained here."""
        return not any(finding.breaks for finding in self.findings)


@dataclass(frozen=True)
class Answer:
    """What came of a probe: the last line it printed, or the last line of its complaint."""

    worked: bool
    text: str


def examine() -> Report:
    """Look at this installation and this machine, in about ten seconds; changes nothing, asks no network."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        installed = {name: code for name, code in PROBES.items() if importlib.util.find_spec(name)}
        answers = dict(zip(installed, pool.map(probe, installed.values()), strict=True))
    requires, versions = _metadata()
    topics = {
        "packages": [*packages(requires, versions), *clashes(answers)],
        "extras": extras(requires or (), versions),
        "video": video(answers.get("av")),
        "words": words(answers.get("textblob")),
        "machine": [*machine(Path("/")), *devices(answers.get("torch")), compiler()],
        "weights": weights(),
    }
    python = f"Python {platform.python_version()} ({sys.prefix})"
    title = f"svilm {__version__}, {python}, {platform.platform(terse=True)}"
    return Report(title, {topic: findings for topic, findings in topics.items() if findings})


def describe(report: Report) -> str:
    """The report as aligned plain text, each remedy under its line."""
    lines = [report.title]
    for topic, findings in report.topics.items():
        width = max(len(finding.name) for finding in findings)
        lines += ["", topic]
        for finding in findings:
            lines.append(f"  {finding.state:<7}  {finding.name:<{width}}  {finding.detail}".rstrip())
            if finding.remedy:
                lines.append(f"  {'':<7}  {'':<{width}}  -> {finding.remedy}")
    broken = [finding.name for finding in report.findings if finding.breaks]
    verdict = f"training is broken by: {', '.join(broken)}" if broken else "training can run here"
    return "\n".join([*lines, "", verdict])


# Probes

PROBES = {
    "torch": """
import json, torch
gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
print(json.dumps({
    "cuda": torch.version.cuda or torch.version.hip,
    "gpus": [[gpu.name, gpu.total_memory, gpu.major >= 8 or torch.version.hip is not None] for gpu in gpus],
    "mps": torch.backends.mps.is_available(),
}))""",
    "transformers": "from transformers import BertModel, VideoMAEModel, VivitModel",
    "av": """
import av, json
from av.codec import Codec
def writes(name):
    try: return bool(Codec(name, "w"))
    except Exception: return False
reads = [name for name in ("h264", "hevc", "vp9", "av1") if name in av.codecs_available]
version = ".".join(str(n) for n in av.library_versions["libavcodec"][:2])
print(json.dumps({"avcodec": version, "reads": reads, "x264": writes("libx264")}))""",
    "textblob": """
from svilm.data.nouns import extractor_name, noun_phrases
assert "circle" in noun_phrases(["a red circle moves left"])[0][0]
print(extractor_name())""",
    "torchvision": "import torchvision",
    "torchcodec": "import torchcodec.decoders",
}
"""By the package they need: code that works where the package does."""


def probe(code: str, seconds: float = 120.0) -> Answer:
    """Run Python code in a process of its own, with this one's paths, offline."""
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-W", "ignore", "-c", code]
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return Answer(False, f"no answer within {seconds:g} s")
    said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    if done.returncode < 0 and not said:
        said = [f"ended by signal {-done.returncode}"]
    return Answer(done.returncode == 0, said[-1] if said else "")


# Packages


def _metadata() -> tuple[list[str] | None, dict[str, str]]:
    """What the installed svilm requires (None where it is not installed), and the versions that are here."""
    versions = {_normal(found.name): found.version for found in metadata.distributions() if found.name}
    try:
        return metadata.requires("svilm") or [], versions
    except metadata.PackageNotFoundError:
        return None, versions


def packages(requires: Iterable[str] | None, versions: Mapping[str, str]) -> list[Finding]:
    """Each requirement of the core, as package metadata states it, against the versions installed."""
    if requires is None:
        detail = "runs from its sources without being installed, so that its requirements are unknown"
        return [Finding("svilm", "missing", detail, 'pip install -e ".[log,dev]"')]
    return [_package(each, versions.get(_normal(each.name))) for each in _wanted(requires, "")]


def extras(requires: Iterable[str], versions: Mapping[str, str]) -> list[Finding]:
    """What each extra gives, and which of its packages are lacking."""
    findings = []
    core = _wanted(requires, "")
    for extra, gives in EXTRAS.items():
        parts = [each for each in _wanted(requires, extra) if each not in core]
        lacking = [each.name for each in parts if not _fits(each, versions.get(_normal(each.name)))]
        if lacking:
            detail, remedy = f"{gives} (lacks {', '.join(lacking)})", f'pip install -e ".[{extra}]"'
            findings.append(Finding(extra, "missing", detail, remedy))
        elif parts:
            findings.append(Finding(extra, "ok", gives))
    return findings


def _wanted(requires: Iterable[str], extra: str) -> list[Requirement]:
    wanted = [Requirement(text) for text in requires]
    return [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": extra})]


def _package(wanted: Requirement, version: str | None) -> Finding:
    if _fits(wanted, version):
        return Finding(wanted.name, "ok", version or "")
    needs, remedy = f"needs {wanted.specifier}", f'pip install "{wanted.name}{wanted.specifier}"'
    if version is None:
        return Finding(wanted.name, "missing", needs, remedy, breaks=True)
    return Finding(wanted.name, "clash", f"{version}, {needs}", remedy, breaks=True)


def _fits(wanted: Requirement, version: str | None) -> bool:
    return version is not None and wanted.specifier.contains(version, prereleases=True)


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def clashes(answers: Mapping[str, Answer]) -> list[Finding]:
    """Packages that are here and do not work, and whether transformers still does."""
    broken = [name for name in UNUSED if name in answers and not answers[name].worked]
    findings = []
    for name in broken:
        detail = f"{answers[name].text}; svilm does not use it, but {UNUSED[name]}"
        findings.append(Finding(name, "clash", detail, f"pip uninstall {name}"))
    if "transformers" in answers and not answers["transformers"].worked:
        detail = f"its models do not import: {answers['transformers'].text}"
        again = "pip install --force-reinstall transformers"
        remedy = f"pip uninstall {' '.join(broken)}" if broken else again
        findings.append(Finding("transformers models", "clash", detail, remedy, breaks=True))
    return findings


# Video and words


def video(answer: Answer | None) -> list[Finding]:
    """What PyAV reads and writes, and whether the ffmpeg program is here."""
    again = "pip install --force-reinstall --only-binary av av"
    if answer is None:
        return [Finding("PyAV", "missing", "no video can be read", "pip install av", breaks=True)]
    if not answer.worked:
        return [Finding("PyAV", "clash", answer.text, again, breaks=True)]
    facts = json.loads(answer.text)
    detail = f"libavcodec {facts['avcodec']} reads {', '.join(facts['reads']) or 'no known codec'}"
    if "h264" in facts["reads"]:
        findings = [Finding("PyAV", "ok", detail)]
    else:
        findings = [Finding("PyAV", "clash", detail, again, breaks=True)]
    if facts["x264"]:
        findings.append(Finding("libx264", "ok", "writes H.264, for the drawn world"))
    else:
        findings.append(Finding("libx264", "missing", "no H.264 can be written; the drawn world needs it", again))
    program = shutil.which("ffmpeg")
    if program:
        return [*findings, Finding("ffmpeg program", "ok", program)]
    detail = "not needed by svilm; handy to cut and convert videos"
    return [*findings, Finding("ffmpeg program", "missing", detail, f"{INSTALL} ffmpeg")]


def words(answer: Answer | None) -> list[Finding]:
    """Which extractor finds the noun phrases of captions."""
    if answer is None:
        return []
    if not answer.worked:
        remedy = "pip install --force-reinstall textblob lemminflect nltk"
        return [Finding("noun phrases", "clash", answer.text, remedy)]
    if answer.text.startswith("spacy:"):
        return [Finding("noun phrases", "ok", f"by spaCy's pipeline {answer.text.removeprefix('spacy:')}")]
    detail = "by the offline chunker; the paper's come from spaCy, of which no pipeline with a parser is here"
    spacy = "" if importlib.util.find_spec("spacy") else 'pip install -e ".[nlp]" && '
    return [Finding("noun phrases", "ok", detail, f"{spacy}python -m spacy download en_core_web_sm")]


# The machine


def machine(root: Path) -> list[Finding]:
    """Cores, memory and disk.  ``root`` is where /proc and /sys/fs/cgroup are found."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota(root / "sys/fs/cgroup")
    if quota is None or quota >= cores or "OMP_NUM_THREADS" in os.environ:
        findings = [Finding("processor", "ok", f"{cores} core{'s' * (cores > 1)}")]
    else:
        detail = f"{cores} cores, of which this container may use {quota:g}: {cores} threads would only wait"
        findings = [Finding("processor", "clash", detail, f"export OMP_NUM_THREADS={max(1, int(quota))}")]
    memory = _memory_bytes(root)
    if memory is not None:
        findings.append(Finding("memory", "ok", f"{memory / GIB:.1f} GiB"))
    shared = Path("/dev/shm")
    if shared.is_dir() and (size := shutil.disk_usage(shared).total) < GIB:
        detail = f"only {size / GIB:.2f} GiB for the frames that loader processes hand over"
        findings.append(Finding("/dev/shm", "clash", detail, "docker run --shm-size 8g, or --set data.workers=0"))
    free = shutil.disk_usage(Path.cwd()).free
    findings.append(Finding("disk", "ok", f"{free / GIB:.0f} GiB free in {Path.cwd()}"))
    return findings


def _cpu_quota(groups: Path) -> float | None:
    """Cores that a control group (version 2 or 1) grants, if it limits them."""
    found = _read(groups / "cpu.max")
    found = found or _read(groups / "cpu/cpu.cfs_quota_us") + _read(groups / "cpu/cpu.cfs_period_us")
    if len(found) < 2 or found[0] in ("max", "-1"):
        return None
    return int(found[0]) / int(found[1])


def _memory_bytes(root: Path) -> int | None:
    """Memory of the machine, or of the control group where that is less; None where neither is known."""
    found = _read(root / "proc/meminfo")
    sizes = [int(found[1]) * 1024] if found[:1] == ["MemTotal:"] else []
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        sizes += [int(word) for word in _read(root / "sys/fs/cgroup" / name) if word.isdigit()]
    return min(sizes, default=None)


def _read(path: Path) -> list[str]:
    """The words of a file, none where it cannot be read."""
    try:
        return path.read_text().split()
    except OSError:
        return []


def devices(answer: Answer | None) -> list[Finding]:
    """The GPUs that torch sees, and one that it does not."""
    if answer is None:
        return [Finding("torch", "missing", "nothing can be trained", "pip install torch", breaks=True)]
    if not answer.worked:
        return [Finding("torch", "clash", answer.text, "pip install --force-reinstall torch", breaks=True)]
    facts = json.loads(answer.text)
    if facts["mps"]:
        return [Finding("GPU", "ok", "Apple's, as device mps")]
    if facts["gpus"]:
        return [
            Finding(f"GPU {number}", "ok", f"{name}, {size / GIB:.0f} GiB, {'' if bf16 else 'no '}bf16")
            for number, (name, size, bf16) in enumerate(facts["gpus"])
        ]
    if shutil.which("nvidia-smi"):
        why = f"torch's CUDA {facts['cuda']} does not see it" if facts["cuda"] else "this torch is a CPU build"
        remedy = "see the driver with nvidia-smi, and take torch for it: https://pytorch.org/get-started/locally"
        return [Finding("GPU", "clash", f"there seems to be one, but {why}", remedy)]
    return [Finding("GPU", "missing", "training runs on the processor: fine for the demo")]


def compiler() -> Finding:
    """What torch.compile needs to write its kernels on the processor (on a GPU, triton needs the same)."""
    found = next(filter(shutil.which, [os.environ.get("CXX", "g++"), "clang++"]), None)
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if found and headers.is_file():
        return Finding("torch.compile", "ok", f"with {found}")
    lacks = f"no {headers}" if found else "no C++ compiler"
    remedy = f"{INSTALL} python{sys.version_info.major}.{sys.version_info.minor}-dev" if found else f"{INSTALL} g++"
    return Finding("torch.compile", "missing", f"{lacks}; only --set training.compile=true needs it", remedy)


def weights() -> list[Finding]:
    """Which published weights are in Hugging Face's cache, and whether the hub may be asked for others."""
    if not importlib.util.find_spec("huggingface_hub"):
        return []
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    rest = "nothing else, as HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "then the hub is asked"
    findings = [Finding("cache", "ok", f"{cache}; {rest}")]
    for name, what in WEIGHTS.items():
        if any((cache / f"models--{name.replace('/', '--')}" / "snapshots").glob("*/*")):
            findings.append(Finding(name, "ok", what))
        else:
            findings.append(Finding(name, "missing", what, f"hf download {name}"))
    return findings
