"""Readers that search while a writer changes everything: does each answer belong to one generation?

The writer notes what the index should hold after each of its commits; the readers note each answer, with k so large
that it lists the whole index; afterwards every answer is held against the note of its generation.
"""

import json
import multiprocessing
import os
import random
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.engine import SearchEngine

SYNCED, UPSERTED = 12, 12  # keys that come and go
SCORE_TOLERANCE = 5e-3  # one picture embedded alone and in a batch

State = dict[str, list[Any]]
"""Key -> [name of the picture that it shows, version in its metadata or None]."""


@dataclass(frozen=True)
class Observed:
    """What the readers saw.

    Attributes:
        commits, answers: how many.
        generations_seen: different generations among the answers.
        errors: exceptions in readers or writer.
        wrong: answers that are not what their generation held; a few of them, in words.
    """

    commits: int
    answers: int
    generations_seen: int
    errors: list[str]
    wrong: list[str]


def observe(folder: Path, pictures: list[Path], model: str, seconds: float, readers: int = 2) -> Observed:
    """Write for `seconds` while `readers` processes search; then check every answer.

    Args:
        folder: an empty one to work in.
        pictures: at least two different ones; the first is the query.
        model: the encoder.
    """
    with SearchEngine.create(folder / "index", model=model) as engine:
        scores = _scores(engine, pictures)
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_write, args=(folder, pictures, seconds)),
        *(context.Process(target=_read, args=(folder, pictures[0], number)) for number in range(readers)),
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(seconds + 120)
    errors = [f"process {n} ended with {p.exitcode}" for n, p in enumerate(processes) if p.exitcode != 0]
    states = {int(one["generation"]): one["state"] for one in _lines(folder / "writer.jsonl")}
    answers = [one for number in range(readers) for one in _lines(folder / f"reader-{number}.jsonl")]
    wrong = [problem for answer in answers if (problem := _problem(answer, states, scores))]
    return Observed(len(states), len(answers), len({one["generation"] for one in answers}), errors, wrong[:5])


def _scores(engine: SearchEngine, pictures: list[Path]) -> dict[str, float]:
    vectors = engine.embed(pictures)
    return {path.name: float(score) for path, score in zip(pictures, vectors @ vectors[0], strict=True)}


def _problem(answer: Mapping[str, Any], states: Mapping[int, State], scores: Mapping[str, float]) -> str | None:
    expected = states.get(answer["generation"])
    found = {key: [score, version] for key, score, version in answer["hits"]}
    if expected is None or expected.keys() != found.keys():
        return f"generation {answer['generation']}: keys {sorted(found)} instead of {sorted(expected or {})}"
    for key, (picture, version) in expected.items():
        if found[key][1] != version or abs(found[key][0] - scores[picture]) > SCORE_TOLERANCE:
            return f"generation {answer['generation']}: {key} is {found[key]} instead of {scores[picture], version}"
    return None


def _write(folder: Path, pictures: list[Path], seconds: float) -> None:
    chance = random.Random(0)
    gallery = folder / "gallery"
    gallery.mkdir()
    shutil.copyfile(pictures[0], gallery / "always.png")
    state: State = {}
    end_s = time.monotonic() + seconds
    with SearchEngine.open(folder / "index") as engine, (folder / "writer.jsonl").open("w") as notes:
        while not state or time.monotonic() < end_s:
            before = engine.generation
            _CHANGES[chance.choice(list(_CHANGES)) if state else "sync"](engine, gallery, pictures, state, chance)
            if engine.generation != before:
                notes.write(json.dumps({"generation": engine.generation, "state": state}) + "\n")
                notes.flush()
    (folder / "done").touch()


def _sync(engine: SearchEngine, gallery: Path, pictures: list[Path], state: State, chance: random.Random) -> None:
    state["always.png"] = [pictures[0].name, None]
    for number in chance.sample(range(SYNCED), 3):
        path, picture = gallery / f"synced {number}.png", chance.choice(pictures)
        if path.exists() and chance.random() < 0.4:
            path.unlink()
            state.pop(path.name)
        else:
            shutil.copyfile(picture, path)
            state[path.name] = [picture.name, None]
    engine.sync(gallery, allow_removals=True)


def _upsert(engine: SearchEngine, _: Path, pictures: list[Path], state: State, chance: random.Random) -> None:
    key, picture, version = f"upserted {chance.randrange(UPSERTED)}", chance.choice(pictures), chance.random()
    engine.upsert(key, picture, metadata={"version": version})
    state[key] = [picture.name, version]


def _update(engine: SearchEngine, _: Path, pictures: list[Path], state: State, chance: random.Random) -> None:
    held = [key for key in state if key.startswith("upserted")]
    if held:
        key, version = chance.choice(held), chance.random()
        engine.update_metadata(key, metadata={"version": version})
        state[key] = [state[key][0], version]


def _remove(engine: SearchEngine, _: Path, pictures: list[Path], state: State, chance: random.Random) -> None:
    held = [key for key in state if key.startswith("upserted")]
    if held:
        key = chance.choice(held)
        engine.remove(key)
        state.pop(key)


_CHANGES = {"sync": _sync, "upsert": _upsert, "update": _update, "remove": _remove}


def _read(folder: Path, query: Path, number: int) -> None:
    with SearchEngine.open(folder / "index") as engine, (folder / f"reader-{number}.jsonl").open("w") as answers:
        vector = engine.embed([query])
        while not (folder / "done").exists():
            if engine.refresh() == 0:  # nothing is in yet
                time.sleep(0.01)
                continue
            result = engine.search_vectors(vector, k=2 * (SYNCED + UPSERTED))[0]
            hits = [[hit.key, hit.score, hit.metadata.get("version")] for hit in result.hits]
            answers.write(json.dumps({"generation": result.generation, "hits": hits}) + "\n")


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split(os.linesep) if line]
