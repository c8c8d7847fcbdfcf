"""What Math-Verify makes of our verifier cases, and how fast. One JSON line on stdout.

    python benches/peer/verify.py CASES [--gsm8k FILE] [--hostile FILE] [--wrong FILE] [--limit 10] [--repeat 3] [--no-alarm]

CASES: JSONL rows {id, gold, pred, pred_kind: "response" | "expr", expected, category, policy}; `policy: null` marks a certain row.
FILE of --gsm8k: rows {answer, solution}. Each becomes one pair: the solution without its calculator marks and its last line, then `#### n`
or `\\boxed{n}` in turn; every fourth pair ends in n + 1 and is wrong; `gsm8k_short` is the ending alone. FILE of --hostile: rows
{name, accept, budget_ms, gold, pred}.

How it is called: defaults of `parse` and `verify`, both with their own alarm of 5 s (--no-alarm: without, as in a thread, where it does not work),
in the main thread of a process. Text that is not a response and is neither a plain number nor contains a bare `$`, `\\(`, `\\[` or `\\boxed` is put
between dollars, as its documentation asks; where the reference is one letter A to J, a rejected pair is tried again with the extractor for strings.

Cases run in a child process that answers row by row, with 4 GiB of address space. A row without an answer after --limit seconds is
hung: the child is killed, the row counts as rejected, a new child goes on after it. A row at which the child dies is a crash, treated alike.
An exception is a rejection and is counted.

Line: certain, policy: {rows, right, accuracy, false_accepts, false_rejects}; hung, crashed, raised: rows; wrong rows by id go to --wrong.
mixed, gsm8k, gsm8k_short: {rows, pairs_per_s, pairs_per_cpu_s, spread}: per second of the wall clock and of the processor's time, one process, one
thread, start and WARM untimed rows left out, hung and crashed rows left out; the median of --repeat passes, each in a new process, and
the slowest over the fastest of them by the wall clock. hostile: {rows, outside_accept, over_budget, hung, crashed, raised}, one pass.
load: the machine's load average before and after.
"""

import argparse
import json
import os
import re
import resource
import select
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from importlib.metadata import version

PEER, WANTED, WARM, ALARM = "math-verify", "0.9.0", 20, 5
READY = re.compile(r"-?\d+(?:\.\d+)?$|.*(?:(?<!\\)\$|\\\(|\\\[(?!\d)|\\boxed)", re.DOTALL)
LETTER = re.compile(r"(?:\\(?:text|textbf|mathrm)\{)?\(?([A-J])\)?\}?")


def judge(alarm):
    """The function (gold, pred, is_response) -> bool over the peer; `alarm` in seconds or None."""
    from math_verify import StringExtractionConfig, parse, verify

    strings = (StringExtractionConfig(strings=tuple("ABCDEFGHIJ")),)
    read, same = partial(parse, parsing_timeout=alarm), partial(verify, timeout_seconds=alarm)

    def marked(text):
        return text if READY.match(text) else f"${text}$"

    def of(gold, pred, is_response):
        if same(read(marked(gold)), read(pred if is_response else marked(pred))):
            return True
        letter = LETTER.fullmatch(gold.strip())
        return letter is not None and same(read(letter[1], strings), read(pred, strings))

    return of


def child(alarm):
    """Rows from stdin, one line [verdict or name of the exception, wall seconds, cpu seconds] each on stdout."""
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print does not mix with the answers
    of = judge(alarm)
    for k in range(WARM):
        of(f"\\frac{{{k}}}{{7}}", f"so it is $\\boxed{{{k}/7}}$", True)
    print("ready", file=out, flush=True)
    for row in map(json.loads, sys.stdin):
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            verdict = bool(of(row["gold"], row["pred"], row.get("pred_kind", "response") == "response"))
        except Exception as error:  # noqa: BLE001: any error of the peer is a finding, not a failure of the measurement
            verdict = type(error).__name__
        print(json.dumps([verdict, time.perf_counter() - wall, time.process_time() - cpu]), file=out, flush=True)


class Lines:
    """Lines of a pipe with a deadline: `next` gives None at its end and raises TimeoutError."""

    def __init__(self, pipe):
        self.file, self.kept = pipe.fileno(), b""

    def next(self, seconds):
        deadline = time.monotonic() + seconds
        while b"\n" not in self.kept:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.file], [], [], left)[0]:
                raise TimeoutError
            more = os.read(self.file, 1 << 16)
            if not more:
                return None
            self.kept += more
        line, self.kept = self.kept.split(b"\n", 1)
        return line


def run(rows, limit, alarm):
    """[verdict, wall, cpu] per row; verdict is a bool, "hung", "crashed" or the name of an exception."""
    done, command = [], [sys.executable, os.path.abspath(__file__), "--child", str(alarm)]
    while len(done) < len(rows):
        with open(os.devnull, "w") as quiet, tempfile.TemporaryFile("w+") as given:
            given.writelines(json.dumps(row) + "\n" for row in rows[len(done):])
            given.seek(0)
            process = subprocess.Popen(command, stdin=given, stdout=subprocess.PIPE, stderr=quiet)
        lines, started = Lines(process.stdout), False
        try:
            started = lines.next(120) is not None
            while started and len(done) < len(rows) and (line := lines.next(limit)) is not None:
                done.append(json.loads(line))
            ended = "crashed"
        except TimeoutError:
            ended = "hung"
        finally:
            process.kill()
            process.wait()
        if not started:
            sys.exit(f"the child did not start: is {PEER} installed?")
        if len(done) < len(rows):
            done.append([ended, 0.0, 0.0])
    return done


def accuracy(rows, results):
    right = sum((result[0] is True) == row["expected"] for row, result in zip(rows, results))
    accepts = sum(result[0] is True and not row["expected"] for row, result in zip(rows, results))
    share = round(right / len(rows), 4) if rows else None
    return dict(rows=len(rows), right=right, accuracy=share, false_accepts=accepts, false_rejects=len(rows) - right - accepts)


def speed(passes):
    """Medians over the passes of rows per second."""
    walls, cpus = [], []
    for results in passes:
        timed = [result for result in results if result[0] not in ("hung", "crashed")]
        walls.append(len(timed) / sum(result[1] for result in timed))
        cpus.append(len(timed) / sum(result[2] for result in timed))
    return dict(rows=len(passes[0]), pairs_per_s=round(statistics.median(walls), 1), pairs_per_cpu_s=round(statistics.median(cpus), 1),
                spread=round(max(walls) / min(walls), 2))


def gsm8k(path, whole):
    with open(path) as file:
        problems = [json.loads(line) for line in file]
    for k, problem in enumerate(problems):
        gold = problem["answer"].replace(",", "")
        said = str(int(gold) + 1) if k % 4 == 3 else gold
        worked = re.sub(r"<<[^>]*>>", "", problem["solution"]).rsplit("\n####", 1)[0]
        ending = f"#### {said}" if k % 2 else f"The answer is $\\boxed{{{said}}}$."
        yield dict(gold=gold, pred=f"{worked}\n{ending}" if whole else ending, pred_kind="response", expected=said == gold)


def hostile(path, limit, alarm):
    with open(path) as file:
        rows = [json.loads(line) for line in file]
    results = run(rows, limit, alarm)
    outside = [row["name"] for row, result in zip(rows, results) if (result[0] is True) not in row["accept"]]
    late = [row["name"] for row, result in zip(rows, results) if isinstance(result[0], bool) and result[1] * 1000 > row["budget_ms"]]
    failed = {what: sum(result[0] == what for result in results) for what in ("hung", "crashed")}
    raised = sum(isinstance(result[0], str) and result[0] not in failed for result in results)
    return dict(rows=len(rows), outside_accept=len(outside), over_budget=len(late), raised=raised, **failed, names_outside=outside)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("cases")
    arguments.add_argument("--gsm8k")
    arguments.add_argument("--hostile")
    arguments.add_argument("--wrong", help="file for the rows that the peer gets wrong, as JSON")
    arguments.add_argument("--limit", type=float, default=10, help="seconds after which a row is hung")
    arguments.add_argument("--repeat", type=int, default=3)
    arguments.add_argument("--no-alarm", action="store_true", help="without the peer's own alarm, as it must be called in a thread")
    options = arguments.parse_args()
    alarm = 0 if options.no_alarm else ALARM
    if version(PEER) != WANTED:
        sys.exit(f"{PEER} {version(PEER)} is installed, {WANTED} is wanted (benches/peer/requirements.txt)")
    load = [round(os.getloadavg()[0], 2)]
    with open(options.cases) as file:
        rows = [json.loads(line) for line in file]
    passes = [run(rows, options.limit, alarm) for _ in range(options.repeat)]
    results = passes[0]
    of = {name: [(row, result) for row, result in zip(rows, results) if (row["policy"] is None) == (name == "certain")] for name in ("certain", "policy")}
    line = dict(peer=PEER, version=WANTED, sympy=version("sympy"), cases=os.path.basename(options.cases), alarm=alarm or None)
    line |= {name: accuracy([row for row, _ in pairs], [result for _, result in pairs]) for name, pairs in of.items()}
    line |= {what: sum(result[0] == what for result in results) for what in ("hung", "crashed")}
    line |= dict(raised=sum(isinstance(result[0], str) for result in results) - line["hung"] - line["crashed"], mixed=speed(passes))
    if options.gsm8k:
        for name, whole in (("gsm8k", True), ("gsm8k_short", False)):
            pairs = list(gsm8k(options.gsm8k, whole))
            passes = [run(pairs, options.limit, alarm) for _ in range(options.repeat)]
            line[name] = accuracy(pairs, passes[0]) | speed(passes)
    if options.hostile:
        line["hostile"] = hostile(options.hostile, options.limit, alarm)
    if options.wrong:
        wrong = [row | dict(verdict=result[0]) for row, result in zip(rows, results) if (result[0] is True) != row["expected"]]
        with open(options.wrong, "w") as file:
            json.dump(wrong, file, ensure_ascii=False, indent=1)
    print(json.dumps(line | dict(load=load + [round(os.getloadavg()[0], 2)])), flush=True)


if __name__ == "__main__":
    sys.exit(child(int(sys.argv[2]) or None) if sys.argv[1:2] == ["--child"] else main())
