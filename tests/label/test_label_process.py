"""The command as a process: killed and started again, ended with Ctrl-C, refused; and `--help` without it."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from label_world import config_of, make_world, rows_of

from pickeropt.errors import PickeroptError
from pickeropt.label.serving import serve


@contextmanager
def running(folder, *more):
    """The command, and its address and token."""
    command = [sys.executable, "-m", "pickeropt", "label", str(folder / "picks.star"), "--diameter", "60"]
    command += ["--micrographs", str(folder / "micrographs"), "--out", str(folder / "labels.star"), *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        found = re.fullmatch(r"open: (http://\S+)/\?token=(\S+)\n", line)
        assert found, line + process.stderr.read()
        yield process, found[1], found[2]
    finally:
        process.kill()
        process.communicate()


def ask(address, token, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"X-Pickeropt-Token": token, "Content-Type": "application/json"}
    request = urllib.request.Request(address + path, data, headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


@pytest.mark.slow
def test_a_server_that_is_killed_has_lost_nothing(tmp_path):
    make_world(tmp_path)
    with running(tmp_path) as (process, address, token):
        for key, name in enumerate(("particle", "carbon", "skip", "particle", "background")):
            ask(address, token, "/api/labels", {"labels": [{"id": key, "class": name}]})
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    kinds = [row[3] for row in rows_of(tmp_path / "labels.star")]
    assert kinds == ["particle", "carbon", "particle", "background"]
    with running(tmp_path) as (process, address, token):
        items = ask(address, token, "/api/picks?limit=6")["items"]
        assert [item["label"] for item in items] == [
            "particle",
            "carbon",
            "skip",
            "particle",
            "background",
            None,
        ]
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (0, "")
        assert out.splitlines()[-1] == f"stopped; the labels are in {tmp_path / 'labels.star'}"
    assert not (tmp_path / ".labels.star.lock").exists()


def test_a_second_command_on_the_same_labels_is_told(tmp_path):
    make_world(tmp_path)
    with running(tmp_path) as (process, _, _):
        command = [
            sys.executable,
            "-m",
            "pickeropt",
            "label",
            str(tmp_path / "picks.star"),
            "--diameter",
            "60",
        ]
        command += ["--micrographs", str(tmp_path / "micrographs"), "--out", str(tmp_path / "labels.star")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: {tmp_path / 'labels.star'}: another server (process {process.pid})")
        assert done.stderr.count("\n") == 1


def test_it_listens_on_this_machine_only(tmp_path):
    make_world(tmp_path)
    with running(tmp_path) as (process, address, _):
        port = int(address.rpartition(":")[2])
        local = f"0100007F:{port:04X}"
        lines = Path(f"/proc/{process.pid}/net/tcp").read_text().splitlines()[1:]
        listening = [line.split()[1] for line in lines if line.split()[3] == "0A"]
        assert local in listening
        assert f"00000000:{port:04X}" not in listening


def test_the_same_labels_have_the_same_port_unless_it_is_taken(tmp_path):
    make_world(tmp_path)
    with running(tmp_path) as (_, first, _):
        pass
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(first.rpartition(":")[2])))
        other.listen()
        with running(tmp_path) as (_, taken, _):
            assert taken != first
    with running(tmp_path) as (_, again, _):
        assert again == first


def test_a_port_that_is_taken_is_said(tmp_path):
    make_world(tmp_path)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PickeroptError, match=f"port {port}: cannot be used.*--port"):
            serve([tmp_path / "picks.star"], config_of(tmp_path, port=port))


@pytest.mark.parametrize("port", [None, 0])
def test_a_host_that_is_none_is_said(tmp_path, port):
    make_world(tmp_path)
    with pytest.raises(PickeroptError, match=r"^a\.\.b, port 0: cannot be used .*another --host"):
        serve([tmp_path / "picks.star"], config_of(tmp_path, host="a..b", port=port))


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch):
    make_world(tmp_path)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(PickeroptError, match=r"pip install 'pickeropt\[ui\]'"):
        serve([tmp_path / "picks.star"], config_of(tmp_path))


def test_help_needs_no_server():
    code = "import sys; from pickeropt.cli import app\ntry: app(['label', '--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in ('fastapi', 'uvicorn', 'torch', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_serving_and_labelling_need_no_torch():
    code = "import sys; import pickeropt.label.app, pickeropt.label.server, pickeropt.label.serving\n"
    code += "print([m for m in ('torch', 'scipy', 'pandas', 'timm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "[]"
