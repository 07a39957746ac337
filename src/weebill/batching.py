"""Micro-batching: texts of many requests share one forward pass, run by one thread. Knows no HTTP and no labels.

All bookkeeping happens in the event loop and only the forward pass in the thread, so nothing here needs a lock.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from weebill.encodings import Encoding
from weebill.errors import WeebillError
from weebill.predictor import Predictor
from weebill.schema import Overflow, Prediction

MAX_BATCH_TEXTS = 64
Floats = npt.NDArray[np.float32]


class Overloaded(WeebillError):
    """As many texts wait as the server accepts."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one forward pass gives for one text; `prediction` and `intent_scores_C` only where labels were asked for."""

    embedding_D: Floats
    encoding: Encoding
    prediction: Prediction | None = None
    intent_scores_C: Floats | None = None


def read_texts(
    predictor: Predictor, texts: Sequence[str], labels: bool, on_overflow: Overflow = "window"
) -> list[Reading]:
    """Return one reading per text, in the order given.

    Args:
        predictor: with heads when `labels` is set.
        texts: any strings, of any length.
        labels: decode intents and entities, not only embeddings.
        on_overflow: as of `Predictor`.
    """
    found: dict[int, Reading] = {}
    for rows, batch, output in predictor.outputs(texts, show_progress=False, on_overflow=on_overflow):
        vectors_BD, encodings = output.sentence_embedding_BD, batch.encodings
        if labels and output.intent_logits_BC is not None:
            predictions = predictor.decode([texts[i] for i in rows], batch, output)
            scores_BC = predictor.intent_scores(output.intent_logits_BC)
            readings = map(Reading, vectors_BD, encodings, predictions, scores_BC)
        else:
            readings = map(Reading, vectors_BD, encodings)
        found.update(zip(rows.tolist(), readings, strict=True))
    return [found[i] for i in range(len(texts))]


@dataclass(slots=True, eq=False)
class _Job:
    """One request: its texts, how many of them went to the model, and what came back."""

    texts: Sequence[str]
    labels: bool
    on_overflow: Overflow
    done: asyncio.Future[list[Reading]]
    taken: int = 0
    readings: list[Reading] = field(default_factory=list)


_Part = tuple[_Job, Sequence[str]]


class Batcher:
    """Reads texts for many callers at once.

    A batch takes what waits, at most MAX_BATCH_TEXTS, in the order of arrival; a text that is read in windows counts as
    that many, and one batch reads all long texts alike. What a large request has beyond goes to the end of the queue,
    so that it holds up others by one batch only. While one batch runs the next one gathers: under load batches fill by
    themselves, and a request that is alone does not wait for others.

    Args:
        predictor: what reads.
        max_waiting_texts: with more in the queue, `read` refuses.
        observe: told texts and seconds of every forward pass.

    Used within one event loop; `close` when nothing is being read any more.
    """

    def __init__(
        self, predictor: Predictor, max_waiting_texts: int, observe: Callable[[int, float], None] = lambda *_: None
    ):
        self.predictor, self.max_waiting_texts, self.waiting_texts = predictor, max_waiting_texts, 0
        self._observe = observe
        self._jobs: deque[_Job] = deque()
        self._thread: ThreadPoolExecutor | None = None
        self._worker: asyncio.Task[None] | None = None

    async def read(self, texts: Sequence[str], labels: bool = False, on_overflow: Overflow = "window") -> list[Reading]:
        """Return one reading per text, in the order given. A caller that is cancelled gives up its place.

        Raises:
            Overloaded: too many texts wait; these were not accepted.
        """
        if self.waiting_texts + len(texts) > self.max_waiting_texts:
            raise Overloaded(f"expected at most {self.max_waiting_texts} texts to wait, got {len(texts)} while "
                             f"{self.waiting_texts} wait already; try again in a moment")  # fmt: skip
        job = _Job(texts, labels, on_overflow, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self.waiting_texts += len(texts)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        try:
            return await job.done
        finally:
            if job in self._jobs:  # the caller was cancelled, or a part failed: nobody waits for the rest
                self._jobs.remove(job)
                self.waiting_texts -= len(job.texts) - job.taken

    def close(self) -> None:
        """End the thread; the next `read` would start another."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    async def _work(self) -> None:
        while self._jobs:
            await asyncio.sleep(0)  # requests that have already arrived join
            if parts := self._take():
                try:
                    await self._run(parts)
                except Exception as error:  # noqa: BLE001  no thread to be had, say: nobody is to wait for ever
                    for job, _ in parts:
                        if not job.done.done():
                            job.done.set_exception(error)

    def _take(self) -> list[_Part]:
        parts: list[_Part] = []
        room = MAX_BATCH_TEXTS
        while room > 0 and self._jobs:
            job = self._jobs.popleft()
            if parts and job.on_overflow != parts[0][0].on_overflow:  # one pass reads all its texts alike
                self._jobs.appendleft(job)
                break
            texts = self._first(job, room)
            if job.done.done():  # cancelled, or an earlier part failed
                self.waiting_texts -= len(job.texts) - job.taken
                continue
            parts.append((job, texts))
            job.taken += len(texts)
            room -= sum(self._windows(job, text) for text in texts)
            self.waiting_texts -= len(texts)
            if job.taken < len(job.texts):
                self._jobs.append(job)
        return parts

    def _first(self, job: _Job, room: int) -> Sequence[str]:
        """Return the next texts of a job that fit, at least one."""
        count = 0
        while room > 0 and job.taken + count < len(job.texts):
            room -= self._windows(job, job.texts[job.taken + count])
            count += 1
        return job.texts[job.taken : job.taken + count]

    def _windows(self, job: _Job, text: str) -> int:
        """Return about how many windows a text is, half-overlapping, at four characters a token."""
        return 1 + len(text) // (2 * self.predictor.max_seq_len) if job.on_overflow == "window" else 1

    async def _run(self, parts: Sequence[_Part]) -> None:
        """Read the parts in one pass; if that fails, each alone, so that a request fails only by its own texts."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "weebill-model")
        texts = [text for _, part in parts for text in part]
        started = time.perf_counter()
        forward = asyncio.get_running_loop().run_in_executor(
            self._thread, read_texts, self.predictor, texts, any(job.labels for job, _ in parts),
            parts[0][0].on_overflow,
        )  # fmt: skip
        await asyncio.wait([forward])
        self._observe(len(texts), time.perf_counter() - started)
        error = forward.exception()
        if error is not None and len(parts) > 1:
            for alone in parts:
                await self._run([alone])
            return
        end = 0
        for job, part in parts:
            start, end = end, end + len(part)
            if job.done.done():  # cancelled meanwhile
                continue
            if error is not None:
                job.done.set_exception(error)
                continue
            job.readings += forward.result()[start:end]
            if len(job.readings) == len(job.texts):
                job.done.set_result(job.readings)
