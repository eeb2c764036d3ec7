"""The gate in stages: each is a session that runs alone, without root. CONTRIBUTING.md says how.

The sessions stand in the order in which .ci/run takes them: first those that fail soonest, then
the longest.

They work in copies of the tree, so that nothing that was built in it before is tested instead of
what git has. `expect` says which engine an environment must have chosen: a compiler that has gone
missing would else go unnoticed, since zdev then relays in Python.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import nox
from nox.command import CommandFailed

ROOT = Path(__file__).resolve().parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

DEBIAN_LIBZMQ = "4.3.4"  # what Debian 12's libzmq3-dev has

# What a user may have set, and what would change what is tested.
for name in (
    "ZDEV_BUILD", "ZDEV_ENGINE", "ZDEV_CFLAGS", "CC", "CFLAGS", "LDFLAGS", "PYTHONPATH",
    "PYTHONHOME", "PYTEST_ADDOPTS", "PYTHONDONTWRITEBYTECODE",
):  # fmt: skip
    os.environ.pop(name, None)
os.environ["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
os.environ["PIP_ROOT_USER_ACTION"] = "ignore"

# A shell that starts nox in the background lets it ignore Ctrl-C, and so would all that it starts;
# the tests of Ctrl-C need it.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
    if signal.getsignal(number) is signal.SIG_IGN:
        interrupts = number == signal.SIGINT
        signal.signal(number, signal.default_int_handler if interrupts else signal.SIG_DFL)


def works(version: str) -> bool:
    """Tell whether a CPython is there. pyenv has commands also for those that it will not run."""
    command = shutil.which(f"python{version}")
    if command is None:
        return False
    tried = subprocess.run([command, "-c", "import ssl"], capture_output=True, check=False)
    return tried.returncode == 0


CPYTHONS = ["3.9", "3.10", "3.11", "3.12", "3.13"]
PYPYS = ["pypy3.9", "pypy3.11"]  # Debian 12's, and today's: .ci/pypy has it
FOUND = list(filter(works, CPYTHONS)) or CPYTHONS
OLDEST, NEWEST = FOUND[0], FOUND[-1]

IS_CI = os.environ.get("CI") == "true"

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["lint", "c", f"tests-{NEWEST}"]  # where nothing is asked for
nox.options.error_on_missing_interpreters = IS_CI  # else their sessions are skipped, and say so
nox.options.download_python = "never"

# Sanitizers: of the addresses that C uses, and of what C leaves undefined.
SANITIZE = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g -O1"


# What the sessions share


DEBIAN = {"gcc": "build-essential", "llvm-cov": "llvm"}  # packages not called as their tools


def need(session: nox.Session, *tools: str) -> None:
    """End the session if a tool is missing, and say where it is to be had."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        packages = " ".join(DEBIAN.get(tool, tool) for tool in missing)
        session.error(f"missing: {', '.join(missing)}; on Debian: apt-get install {packages}")


def output(session: nox.Session, *command: str) -> str:
    """Return what a command prints; the session ends if it fails."""
    return str(session.run(*command, external=True, silent=True)).strip()


def pkg_config(session: nox.Session, *options: str) -> list[str]:
    """Return what pkg-config says of libzmq's headers."""
    need(session, "pkg-config")
    said = subprocess.run(
        ["pkg-config", *options, "libzmq"], capture_output=True, text=True, check=False
    )
    if said.returncode:
        session.error("missing: libzmq's headers; on Debian: apt-get install libzmq3-dev")
    return said.stdout.split()


@contextlib.contextmanager
def clean_copy(session: nox.Session) -> Iterator[Path]:
    """Work in a copy of what git tracks, as it stands, with nothing built in it."""
    need(session, "git")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    with tempfile.TemporaryDirectory(prefix="zdev-") as directory:
        tree = Path(directory).resolve()
        for file in filter(None, listed.stdout.split("\0")):
            if (ROOT / file).exists():  # else it has been deleted, and git does not know yet
                (tree / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / file, tree / file)
        with session.chdir(tree):
            yield tree


EXPECT = """
import platform, sys, zdev, zmq
engine, place = sys.argv[1:]
print(f"{platform.python_implementation()} {platform.python_version()}, pyzmq {zmq.__version__},"
      f" libzmq {zmq.zmq_version()}, engine {zdev.engine}")
assert zdev.__file__.startswith(place + "/"), f"zdev came from {zdev.__file__}, not from {place}"
assert zdev.engine == engine, f"engine {zdev.engine}, wanted {engine}"
"""


def expect(session: nox.Session, engine: str, tree: Path | None = None, **environment: str) -> None:
    """Check the engine that zdev has chosen, and that zdev comes from where it was installed.

    That is the tree, if it was installed editable, else the session's environment.
    """
    place = str(tree or Path(session.virtualenv.location).resolve())
    with session.chdir("/"):
        session.run("python", "-c", EXPECT, engine, place, env=environment, log=False)


def install_editable(
    session: nox.Session, tree: Path, *requirements: str, extras: str = "test"
) -> None:
    """Install a copy of the tree, so that its tests can be run; the C loop must be there."""
    # Built from source, these take minutes, or a compiler of Rust.
    binary = ("--only-binary", "gevent,hypothesis,pyzmq,uvloop")
    session.install("-qq", "-e", f".[{extras}]", *binary, *requirements)
    expect(session, "cffi", tree)


def with_event_loops(session: nox.Session) -> list[str]:
    """Return what installs gevent and uvloop, of which there are no wheels for PyPy."""
    return [] if session.python in PYPYS else ["gevent", "uvloop"]


STEADY = 10  # times that a test which has failed once must pass
MOST_UNSTEADY = 3
FAILED = 1  # pytest's exit status where tests did; tests/conftest.py has another for crashes


def run_suite(session: nox.Session, *arguments: str, **environment: str) -> None:
    """Run the tests, or those that are asked for: ``nox -s tests-3.12 -- tests/relay -k stop``."""
    command = ("python", "-m", "pytest", "-q")
    options = [word for word in arguments if re.match("--(engines|capture)=", word)]
    first = (*command, "-n", "2", *arguments, *session.posargs)
    run_steadily(session, first, (*command, *options), **environment)


def run_steadily(
    session: nox.Session, first: Sequence[str], again: Sequence[str], **environment: str
) -> None:
    """Run tests by the first command; those that have failed, ten times more by the other one.

    The gate runs some forty thousand tests of threads and processes, several at the same time, on
    machines that do other things too. One that fails once in ten thousand runs would fail every
    fourth gate, and say nothing of the change. So one that has failed is run ten times more: if it
    fails in any of them, or has crashed or hung, or if several have failed, the session fails. Else
    it is called unsteady, here and at the end of the gate, and is to be looked into all the same.
    """
    kept = Path(".pytest_cache/v/cache/lastfailed")
    kept.unlink(missing_ok=True)
    try:
        session.run(*first, env=environment, external=True)
    except CommandFailed as error:
        failed = sorted(json.loads(kept.read_text())) if kept.exists() else []
        if error.return_code != FAILED or not 0 < len(failed) <= MOST_UNSTEADY:
            raise
    else:
        return
    for _ in range(STEADY):
        session.run(*again, *failed, env=environment, external=True)
    for test in failed:
        session.warn(f"UNSTEADY: {test} failed once, and then passed {STEADY} times")


# C, and what is read but not run


@nox.session(python=NEWEST)
def lint(session: nox.Session) -> None:
    """Check style and types; find every seeded fault in the source as it is."""
    with clean_copy(session) as tree:
        install_editable(session, tree, extras="lint,test")
        session.run("ruff", "check", ".")
        session.run("ruff", "format", "--check", ".")
        session.run("mypy", "--strict")
        session.run("mypy", "--strict", "tests/typing", "tests/proofs", "noxfile.py", "share")
        # Trying the faults takes hours; but each must still be found.
        session.run("python", "-m", "tests.proofs.mutate", "--list", silent=True)


@nox.session(venv_backend="none")
def c(session: nox.Session) -> None:
    """Compile the C loop without a warning, by gcc and clang."""
    need(session, "gcc", "clang")
    flags = ("-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror")
    for compiler in ("gcc", "clang"):
        session.run(compiler, "--version")
        for source in sorted(ROOT.glob("csrc/*.c")):
            session.run(compiler, *flags, "-c", "-o", os.devnull, str(source))


@nox.session(venv_backend="none")
def leaks(session: nox.Session) -> None:
    """Look whether the C loop closes what it holds.

    By a driver in C, since what Python itself never frees would drown ours.
    """
    need(session, "gcc")
    libzmq = pkg_config(session, "--cflags", "--libs")
    flags = [*SANITIZE.split(), "-Wall", "-Wextra", "-Werror", "-Icsrc"]
    sources = ["tests/proofs/leaks.c", *map(str, sorted(ROOT.glob("csrc/*.c")))]
    with tempfile.TemporaryDirectory() as directory:
        driver = f"{directory}/leaks"
        session.run("gcc", *flags, "-o", driver, *sources, *libzmq)
        session.run(driver, env={"ASAN_OPTIONS": "detect_leaks=1"})


# The suite


# Both loops over a scripted libzmq, of which no Python makes anything else.
SCRIPTED = (
    "tests/loops/test_injection.py",
    "tests/loops/test_interleaving.py",
    "tests/loops/test_short_way.py",
)
COMMAND = "tests/command"
MESSAGES = ("tests/loops", "tests/relay")  # where it matters most on which engine they are moved


@nox.session(python=[*PYPYS, *reversed(CPYTHONS)])
def tests(session: nox.Session) -> None:
    """Run the tests: all, on every engine, on the newest CPython.

    On Debian's PyPy, those of loops and relays run on every engine. Today's has no scripted libzmq,
    for which PyPy takes minutes. The older CPythons leave out those of loops and of the command,
    which take as long as all others: the oldest has them with the oldest pyzmq.
    """
    with clean_copy(session) as tree:
        extras = "lint,test" if session.python == NEWEST else "test"  # the typing tests run mypy
        install_editable(session, tree, *with_event_loops(session), extras=extras)
        if session.posargs:
            run_suite(session)
        elif session.python == NEWEST:
            run_suite(session, "--engines=all")
        elif session.python == PYPYS[0]:
            run_suite(session, "--engines=all", *MESSAGES)
            run_suite(session, *(f"--ignore={path}" for path in MESSAGES))
        else:
            left_out = SCRIPTED if session.python in PYPYS else ("tests/loops", COMMAND)
            run_suite(session, *(f"--ignore={path}" for path in left_out))


# Files with tests that fork, which the sanitizer's locks do not survive beside libzmq's threads, or
# that weigh the memory, which it keeps.
UNFIT = (
    "tests/aio",
    "tests/devices",
    "tests/command",
    "tests/kit",
    "tests/relay/test_fork.py",
)
TRACED = "tests/relay/test_own_loop.py::test_handlers_that_raise_at_any_moment_take_no_sign"
"""Traces Python, which is ten times slower there, and says nothing of the C loop."""


@nox.session(python=NEWEST)
def sanitized(session: nox.Session) -> None:
    """Run the C loop's tests with sanitizers in it."""
    need(session, "gcc")
    with clean_copy(session) as tree:
        flags = {"ZDEV_CFLAGS": SANITIZE, "LDFLAGS": SANITIZE}
        session.install("-qq", "-e", ".[test]", env=flags)
        if "__asan_report_store" not in output(session, "nm", "-D", "zdev/_engines/_c.abi3.so"):
            session.error("the extension was built without the sanitizer")
        # Python allocates with malloc, so that what CFFI allocates is watched too; libstdc++ is
        # loaded early, since the sanitizer looks for its exceptions then. pytest leaves descriptor
        # 2 alone, where the sanitizer writes as it ends the process.
        libraries = ("libasan.so", "libstdc++.so")
        files = [output(session, "gcc", f"-print-file-name={name}") for name in libraries]
        environment = {
            "LD_PRELOAD": " ".join(files),
            "ASAN_OPTIONS": "detect_leaks=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "PYTHONMALLOC": "malloc",
        }
        expect(session, "cffi", tree, **environment)
        unfit = [f"--ignore={path}" for path in UNFIT]
        unfit.append(f"--deselect={TRACED}")
        run_suite(session, "--engines=cffi", "--capture=sys", *unfit, **environment)


@nox.session(name="libzmq-oldest", python=OLDEST, tags=["libzmq"])
def libzmq_oldest(session: nox.Session) -> None:
    """Run all tests on the oldest pyzmq that is allowed, those of loops on every engine."""
    (oldest,) = re.findall(r'"pyzmq>=([\d.]+)"', PYPROJECT)
    with clean_copy(session) as tree:
        install_editable(session, tree, f"pyzmq=={oldest}", *with_event_loops(session))
        run_suite(session)


@nox.session(name="libzmq-debian", python=NEWEST, tags=["libzmq"])
def libzmq_debian(session: nox.Session) -> None:
    """Run the tests on Debian's libzmq, with a pyzmq that is built from source for it."""
    need(session, "gcc")
    found = pkg_config(session, "--modversion")
    if found != [DEBIAN_LIBZMQ]:
        session.error(f"libzmq {found[0]} is installed here, not Debian 12's {DEBIAN_LIBZMQ}")
    # With no libzmq bundled, CMake takes the one that pkg-config names. No cache: a wheel that was
    # built on this machine before might have another.
    options = ("--no-cache-dir", "--no-binary", "pyzmq")
    session.install("-qq", *options, "pyzmq", env={"PYZMQ_NO_BUNDLE": "1"})
    used = output(session, "python", "-c", "import zmq; print(zmq.zmq_version())")
    if used != DEBIAN_LIBZMQ:
        session.error(f"pyzmq was built with libzmq {used}, not {DEBIAN_LIBZMQ}")
    with clean_copy(session) as tree:
        session.install("-qq", "-e", ".[test]", "gevent", "--only-binary", "gevent")
        expect(session, "cffi", tree)
        run_suite(session, *(f"--ignore={path}" for path in (*SCRIPTED, COMMAND)))


# README's two commands


def readme_command(session: nox.Session, which: str) -> tuple[str, str, str]:
    """Return the command that README marks so, as a new user gives it to a shell."""
    found = re.findall(rf"^<!-- ci: {which} -->\n```sh\n(.+)\n```$", README, re.MULTILINE)
    if len(found) != 1:
        session.error(f"README.md has no ```sh block of one line behind <!-- ci: {which} -->")
    return "sh", "-ec", found[0]


@nox.session(name="readme-demo", python=NEWEST, tags=["readme"])
def readme_demo(session: nox.Session) -> None:
    """Run README's first command twice: it sets up what is there already, too."""
    with clean_copy(session):
        for _ in range(2):
            session.run(*readme_command(session, "demo"), external=True)


@nox.session(name="readme-test", python=NEWEST, tags=["readme"])
def readme_test(session: nox.Session) -> None:
    """Run README's second command."""
    with clean_copy(session):
        run_steadily(session, readme_command(session, "test"), (".venv/bin/pytest", "-q"))


# Proofs


@nox.session(venv_backend="none")
def fuzz(session: nox.Session) -> None:
    """Throw arbitrary bytes at the C loop; see that seeded bugs are found by that.

    ``nox -s fuzz -- 600`` does so for 600 seconds, and as long for each bug.
    """
    need(session, "clang", "llvm-cov")
    if not Path(output(session, "clang", "-print-runtime-dir")).is_dir():
        session.error("missing: clang's sanitizers; on Debian: apt-get install libclang-rt-dev")
    for what in ("run", "bugs"):
        session.run("tests/proofs/fuzz/run", what, *session.posargs)


@nox.session(venv_backend="none")
def model(session: nox.Session) -> None:
    """Verify the model of how the loops wait; see that it breaks with any mistake in it."""
    need(session, "spin", "gcc")
    session.run("bash", "tests/proofs/model/check")


@nox.session(python=NEWEST)
def threads(session: nox.Session) -> None:
    """Run the tests of control from other threads under ThreadSanitizer, which must see races."""
    need(session, "gcc")
    with clean_copy(session) as tree:
        install_editable(session, tree)
        python = str(Path(session.bin, "python"))
        # It copies the tree again, to seed races, and runs the tests there.
        session.run(str(ROOT / "tests/proofs/fuzz/run"), "threads", python, external=True)


@nox.session(python=[NEWEST, *PYPYS])
def soak(session: nox.Session) -> None:
    """Let all happen to devices that may happen to them, for a minute, or as `posargs` say."""
    with clean_copy(session) as tree:
        install_editable(session, tree)
        options = session.posargs or ("--seconds", "60", "--seed", "1")
        session.run("python", "-m", "tests.proofs.soak", *options)


@nox.session(name="soak-brokers", python=NEWEST)
def soak_brokers(session: nox.Session) -> None:
    """Run six devices of a file while it changes, peers change and processes die; for 75 seconds.

    ``nox -s soak-brokers -- --seconds 600 --seed 7`` does so for longer.
    """
    with clean_copy(session) as tree:
        install_editable(session, tree)
        options = session.posargs or ("--seconds", "75", "--seed", "1")
        session.run("python", "-m", "tests.proofs.soak.brokers", *options)


@nox.session(python=NEWEST)
def speed(session: nox.Session) -> None:
    """Hold what repeats from run to run against its limits; see that the benchmarks run."""
    need(session, "gcc", "valgrind", "strace")
    shapes = (
        "PULL-PUSH inproc 100 B",
        "XSUB-XPUB inproc 100 B + PU*",
        "ROUTER-ROUTER inproc 100 B",
        "ROUTER-DEALER tcp 100 B ping-pong",
        "ROUTER-DEALER inproc 100 B reverse*",
        "ROUTER-DEALER inproc 100 B 100 clients",
    )
    with clean_copy(session) as tree:
        session.install("-qq", "-e", ".[bench]")
        expect(session, "cffi", tree)
        session.run("python", "-m", "benchmarks", "gate")
        # Every shape once, so that the command works; its figures mean nothing here.
        quickly = ("--rounds", "1", "--seconds", "0.2", "--picture", "picture")
        session.run("python", "-m", "benchmarks", *quickly, *shapes)
        for picture in ("picture.png", "picture.svg"):
            if not (tree / picture).stat().st_size:
                session.error(f"{picture} is empty")


# Packaging


def has_share(session: nox.Session) -> None:
    """Check that the man page and the completions were installed, too."""
    for file in sorted((ROOT / "share").glob("*/**/*")):
        place = Path(session.virtualenv.location, file.relative_to(ROOT))
        if file.is_file() and not place.is_file():
            session.error(f"{place} was not installed")


@nox.session(name="packaging-installed", python=[NEWEST, *PYPYS], tags=["packaging"])
def packaging_installed(session: nox.Session) -> None:
    """Install zdev as a user does, and run the demo; without cffi, zdev goes on and says why."""
    with clean_copy(session):
        session.install("-qq", ".")
    expect(session, "cffi")
    has_share(session)
    with session.chdir("/"):
        session.run("zdev", "demo", "-n", "500")
        if session.python not in PYPYS:  # where cffi belongs to the interpreter
            session.run("python", "-m", "pip", "uninstall", "-qq", "-y", "cffi")
            expect(session, "ctypes")
            told = output(session, "python", "-m", "zdev", "info")
            session.log(told)
            if "pip install cffi" not in told:
                session.error("zdev info does not say that cffi is missing")


def build_wheel(session: nox.Session, python: str, name: str, **environment: str) -> str:
    """Build a wheel with a Python; return its file, whose name must be as described."""
    place = Path(tempfile.mkdtemp(dir=session.create_tmp()))
    with clean_copy(session):
        pip = (python, "-m", "pip", "wheel", "-qq", "--no-deps")
        session.run(*pip, "-w", str(place), ".", env=environment, external=True)
    (wheel,) = place.iterdir()
    if not wheel.match(name):
        session.error(f"{wheel.name} should be called {name}")
    return str(wheel)


@nox.session(name="packaging-uncompiled", python=[NEWEST, *PYPYS], tags=["packaging"])
def packaging_uncompiled(session: nox.Session) -> None:
    """Install zdev where it is not to be compiled, or cannot be."""
    engine = "cffi-abi" if session.python in PYPYS else "ctypes"
    ways = {
        "switched off": {"ZDEV_BUILD": "off"},
        "a compiler that fails": {"CC": "/bin/false"},
        "no compiler": {"PATH": session.bin},
    }
    for way, environment in ways.items():
        session.log(f"{way}:")
        with clean_copy(session):
            session.install("-qq", "--force-reinstall", ".", env=environment)
        expect(session, engine)
    build_wheel(session, "python", "zmq_devices-*-py3-none-any.whl", ZDEV_BUILD="off")


@nox.session(name="packaging-wheel", python=[*dict.fromkeys((OLDEST, NEWEST))], tags=["packaging"])
def packaging_wheel(session: nox.Session) -> None:
    """Install a wheel that was built on another CPython: the oldest's on the newest, and back."""
    other = OLDEST if session.python == NEWEST else NEWEST
    builder = f"{session.create_tmp()}/builder"
    session.run(f"python{other}", "-m", "venv", builder, external=True)
    name = "zmq_devices-*-cp39-abi3-*.whl"
    session.install("-qq", build_wheel(session, f"{builder}/bin/python", name))
    expect(session, "cffi")


@nox.session(name="packaging-sdist", python=NEWEST, tags=["packaging"])
def packaging_sdist(session: nox.Session) -> None:
    """Install zdev from its source distribution: all that it is built of is in there."""
    with clean_copy(session) as tree:
        session.install("-qq", "build")
        session.run("python", "-m", "build", "--sdist", "-o", "sdist", silent=True)
        (sdist,) = (tree / "sdist").iterdir()
        session.log(sdist.name)
        session.install("-qq", str(sdist))
    expect(session, "cffi")
    has_share(session)
