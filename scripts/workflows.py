"""Reads action.yml and .github/workflows, and runs their scripts like a GitHub runner."""

import os
import pathlib
import re
import subprocess
import sys

from ruamel.yaml import YAML

ROOT = pathlib.Path(__file__).resolve().parent.parent
ACTION = ROOT / "action.yml"
UPDATE_ACTION = ROOT / "update/action.yml"
ACTIONS = [ACTION, UPDATE_ACTION]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
# The context of a job that uses the action of its own checkout.
GITHUB = {"actor": "octocat", "action_ref": "", "action_repository": "", "ref_name": "main"}


def load(path):
    return YAML(typ="safe").load(path.read_text())


def expect(condition, message):
    if not condition:
        sys.exit(f"check-workflows: {message}")


def outputs(path):
    """Parses what a step wrote to GITHUB_OUTPUT, as NAME=VALUE or as NAME<<END with lines up to END."""
    found, lines = {}, iter(path.read_text().splitlines())
    for line in lines:
        if heredoc := re.fullmatch(r"([\w-]+)<<(.+)", line):
            found[heredoc[1]] = "\n".join(iter(lambda: next(lines), heredoc[2]))
        else:
            name, _, value = line.partition("=")
            found[name] = value
    return found


def run(script, shell, env, temp, cwd, may_fail=False):
    """Runs a script like GitHub's shells. Returns its outputs, or None if it fails and may do so."""
    output = pathlib.Path(temp, "output")
    output.write_text("")
    words = {"bash": ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"], None: ["bash", "-e", "-c"]}[shell]
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME") if name in os.environ}
    env = kept | {"GITHUB_OUTPUT": str(output), "RUNNER_TEMP": temp, "GITHUB_ACTION_PATH": str(ROOT)} | env
    done = subprocess.run([*words, script], env=env, cwd=cwd, check=False)
    if may_fail and done.returncode != 0:
        expect(not output.read_text(), "a script that failed has outputs")
        return None
    expect(done.returncode == 0, f"a script failed with {done.returncode}: {script}")
    return outputs(output)


def run_action(given, temp, cwd, path=ACTION, more=None):
    """Runs those steps of an action that are scripts, with `more` variables. Returns the outputs of each."""
    action = load(path)
    inputs = {name: given.get(name, str(one.get("default", ""))) for name, one in action["inputs"].items()}
    steps = {}

    def value(match):
        place = match.group(1).split(".")
        if place[0] == "inputs":
            return inputs[place[1]]
        if place[0] == "steps":
            return steps[place[1]][place[3]]
        return GITHUB[place[1]]

    for step in action["runs"]["steps"]:
        name = step.get("name", step.get("id"))
        if "uses" in step:
            print(f"not run here: {name} ({step['uses']})")
        elif step.get("if") == "inputs.push != ''" and not inputs["push"]:
            print(f"skipped by its condition: {name}")
        else:
            print(f"running: {name}", flush=True)
            env = {key: EXPRESSION.sub(value, text) for key, text in step.get("env", {}).items()}
            env |= {"GITHUB_ACTION_PATH": str(path.parent)} | (more or {})
            steps[step.get("id", name)] = run(step["run"], step["shell"], env, temp, cwd)
    return steps
