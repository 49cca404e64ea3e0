"A program as a user writes it: it is never run, type checkers read it in their strict modes (`test_types.py`)."
import asyncio
import pickle
from collections.abc import Iterator
from pathlib import Path

from bert_ner import AsyncTagger, BertNerError, Entities, Entity, Tagger


def lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file: yield from file


def longest(found: Entities) -> Entity | None: return max(found, key=lambda e: e.end - e.start, default=None)


def places(tagger: Tagger, texts: list[str]) -> dict[str, list[str]]:
    return {
        text: [e.text for e in found if e.label == "geo" and e.score > 0.5]
        for text, found in zip(texts, tagger.tag_batch(texts))
    }


def count(tagger: Tagger, path: Path) -> int:
    return sum(len(found) for found in tagger.pipe(lines(path), chunk_chars=10_000))


async def answer(tagger: Tagger, texts: list[str]) -> list[Entities]:
    served = AsyncTagger(tagger, max_batch_size=32)
    return await asyncio.gather(*(served.tag(text) for text in texts))


def main() -> None:
    try: tagger = Tagger.from_pretrained("models/mine", "onnx", threads=2)
    except BertNerError as e: print(e); tagger = Tagger.from_pretrained(device="cpu")
    found: Entities = tagger.tag("Angela Merkel met officials in Paris on Monday.")
    first: Entity = found[0]
    rest: Entities = found[1:]
    both: list[Entity] = [first, *rest]
    start: int = first.start
    text: str = first.text + found.text + found.to_json() + found.to_conll() + str(first.to_dict()["label"])
    tags: list[str] = tagger.tag_tokenized([["in", "Paris"]])[0].tags
    words: list[str] = [word for t in tagger.tag_tokenized(iter([("in", "Paris")])) for word in t.tags]
    score: float = float(tagger.tag_tokenized([["in", "Paris"]])[0].probs[0])
    again: Tagger = pickle.loads(pickle.dumps(tagger))
    line: str = again.description + repr(again.about.get("date"))
    answers: list[Entities] = asyncio.run(answer(again, [text, line]))
    print(
        both,
        start,
        tags,
        words,
        score,
        len(answers),
        longest(found),
        places(tagger, [text]),
        count(tagger, Path("texts.txt")),
    )


if __name__ == "__main__": main()
