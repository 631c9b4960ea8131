"""Example → Encoded, through the task's messages and the family's chat format. The only place where text becomes
token ids; what is too long is shortened here, and only the part that the task calls shrinkable; images shrink.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from weitiao.data.rows import refuse_too_long, refuse_unsupervised
from weitiao.data.windows import windows
from weitiao.errors import DataError, ImageError, RenderError
from weitiao.families.chat_format import ChatFormat
from weitiao.families.vision import Vision
from weitiao.images import ImageFacts, image_facts
from weitiao.run_folder import ImageLimits
from weitiao.tasks.base import Example, Task
from weitiao.types import Encoded, ImagePart, Message, PlacedImage, Span, TextPart

CUT_MARK = "…"
"""Stands where the middle of a long text was left out."""
AT_ONCE = 4096
"""Rows whose texts are encoded together: what a tokenizer notes of each takes far more memory than its ids."""


class Encoder:
    """Renders one task for one model.

    max_length: tokens that a shrinkable text and the images of a row may take. limit: tokens that the model can take in
    all. vision, images: how the model sees images and how they are resized; None for one that reads text alone.
    """

    def __init__(
        self,
        task: Task,
        chat: ChatFormat,
        max_length: int,
        limit: int,
        vision: Vision | None = None,
        images: ImageLimits | None = None,
    ) -> None:
        self.task, self.chat = task, chat
        self.max_length, self.limit = max_length, limit
        self.vision, self.images = vision, images

    def prompt(self, example: Example) -> Encoded:
        """The prompt alone, for prediction."""
        return self.prompts([example])[0]

    def prompts(self, examples: Sequence[Example]) -> list[Encoded]:
        """Of many rows at once, on all cores."""
        starts = range(0, len(examples), AT_ONCE)
        return [encoded for start in starts for encoded in self._prompts(examples[start : start + AT_ONCE])]

    def _prompts(self, examples: Sequence[Example]) -> Iterator[Encoded]:
        messages = [self.task.prompt(example) for example in examples]
        fitted = [self._fitted(*pair) for pair in zip(messages, examples, strict=True)]
        rooms = [self.max_length - sum(image.tokens for image in images) for images in fitted]
        sizes = self._sizes(messages, rooms)
        shortened = [
            self._shortened(_with_tokens(told, images), room, sizes)
            for told, images, room in zip(messages, fitted, rooms, strict=True)
        ]
        every = self.chat.prompts_ids([told for told, _, _ in shortened])
        for ids, (_, removed, gap), images, example in zip(every, shortened, fitted, examples, strict=True):
            refuse_too_long(len(ids), self.limit, example.row.place)
            yield Encoded(ids, len(ids), removed, gap, self._placed(images, ids))

    def windows(self, example: Example) -> list[Span]:
        """Stretches of a text that was shortened, each short enough to be shown whole, with the images of the row."""
        fitted = self._fitted(self.task.prompt(example), example)
        room = self.max_length - sum(image.tokens for image in fitted)
        return windows(example.text, room, self.chat.tokenizer.spans)

    def training(self, example: Example) -> Encoded:
        """Prompt, answer and stop. The answer and the stop are supervised, and never cut; what an answer says of a
        stretch that was left out of the text is not asked for."""
        return self.trainings([example])[0]

    def trainings(self, examples: Sequence[Example]) -> list[Encoded]:
        """Of many rows at once, on all cores."""
        return [self._answered(*pair) for pair in zip(self.prompts(examples), examples, strict=True)]

    def _answered(self, encoded: Encoded, example: Example) -> Encoded:
        target = self.task.target(self.task.seen(example.answer, encoded.gap))
        answer = self.chat.answer_ids(target)
        refuse_unsupervised(len(answer), target, example.row.place)
        refuse_too_long(len(encoded.ids) + len(self.chat.lead) + len(answer) + 1, self.limit, example.row.place)
        return replace(encoded, ids=(*encoded.ids, *self.chat.lead, *answer, self.chat.stop))

    def _fitted(self, messages: Sequence[Message], example: Example) -> list[PlacedImage]:
        """The images of a row, resized so that they and its text take no more than `max_length` tokens.

        They may take half of it at least, whatever the text: that can be shortened. Where they come to stand is not
        known yet. RenderError when they take more even at the least size that they may have.
        """
        paths = [part.path for message in messages for part in message.parts if isinstance(part, ImagePart)]
        if not paths:
            return []
        if self.vision is None:
            raise RenderError(
                f"{example.row.place}: has an image, but the model reads text alone; choose one that reads images, "
                'such as Qwen/Qwen2-VL-2B-Instruct, or leave images out with data.columns={image: ""}'
            )
        try:
            facts = [image_facts(path) for path in paths]
            found = [self._sized(path, told, example) for path, told in zip(paths, facts, strict=True)]
            room = self._room(messages)
            if sum(image.tokens for image in found) > room:
                most = room // len(paths) * self.vision.unit**2
                found = [self._sized(path, told, example, most) for path, told in zip(paths, facts, strict=True)]
        except DataError as error:
            raise ImageError(f"{example.row.place}: {error}") from None
        taken = sum(image.tokens for image in found)
        if taken > room:
            raise RenderError(
                f"{example.row.place}: {len(paths)} images take {taken} tokens, but data.max_length leaves {room} for "
                "them; raise it, or lower data.min_pixels or data.image_size"
            )
        return found

    def _room(self, messages: Sequence[Message]) -> int:
        texts = [p.text for m in messages for p in m.parts if isinstance(p, TextPart) and p.shrinkable]
        text = sum(len(self.chat.tokenizer.encode(text)) for text in texts)
        return max(self.max_length - text, self.max_length // 2)

    def _sized(self, path: str, facts: ImageFacts, example: Example, most: int | None = None) -> PlacedImage:
        assert self.vision is not None
        assert self.images is not None
        if most is not None:
            most = max(most, self.images.min_pixels)
        height, width = self.vision.fitted(facts.height, facts.width, self.images, most)
        rows, columns = self.vision.tokens(height, width)
        return PlacedImage(path, facts.digest, height, width, rows, columns, -1, example.row.place)

    def _placed(self, images: Sequence[PlacedImage], ids: Sequence[int]) -> tuple[PlacedImage, ...]:
        """The images where their tokens stand; no text becomes such a token."""
        placed = []
        at = 0
        for image in images:
            at = ids.index(self.chat.image, at)
            placed.append(replace(image, start=at))
            at += image.tokens
        return tuple(placed)

    def _sizes(self, messages: Sequence[Sequence[Message]], rooms: Sequence[int]) -> dict[str, int]:
        """Tokens of the shrinkable texts that may be longer than their room."""
        texts = {
            part.text
            for told, room in zip(messages, rooms, strict=True)
            for message in told
            for part in message.parts
            # A token is at least one byte, and a code point at most four, which a normal form can make twelve (UAX 15).
            if isinstance(part, TextPart) and part.shrinkable and len(part.text) * 12 > room
        }
        return dict(zip(texts, self.chat.tokenizer.lengths(list(texts)), strict=True))

    def _shortened(
        self, messages: Sequence[Message], room: int, sizes: Mapping[str, int]
    ) -> tuple[list[Message], int, Span | None]:
        """Messages whose shrinkable part takes at most `room` tokens; tokens left out; where they stood. A task has one
        shrinkable part. sizes: of texts, in tokens; those that are not in it are short enough."""
        removed, gap = 0, None
        out = []
        for message in messages:
            parts: list[TextPart | ImagePart] = []
            for part in message.parts:
                if isinstance(part, TextPart) and part.shrinkable and sizes.get(part.text, 0) > room:
                    text, removed, gap = self._shorten(part.text, room)
                    part = TextPart(text, shrinkable=True)
                parts.append(part)
            out.append(Message(message.role, tuple(parts)))
        return out, removed, gap

    def _shorten(self, text: str, room: int) -> tuple[str, int, Span | None]:
        """Head and tail of a text that is longer than `room`, how many tokens were left out, and where."""
        spans = self.chat.tokenizer.spans(text)
        keep = room - len(self.chat.tokenizer.encode(CUT_MARK))
        while keep > 1:
            end, start = spans[keep - keep // 2 - 1][1], spans[-(keep // 2)][0]
            short = text[:end] + CUT_MARK + text[start:]
            over = len(self.chat.tokenizer.encode(short)) - room
            if over <= 0:
                return short, sum(end <= first and last <= start for first, last in spans), (end, start)
            # Tokens merge differently at the seam, and a character of several tokens stays whole.
            keep -= over
        return CUT_MARK, len(spans), (0, len(text))


def _with_tokens(messages: Sequence[Message], images: Sequence[PlacedImage]) -> list[Message]:
    """The messages, each image with the number of its tokens."""
    sizes: Iterator[int] = iter([image.tokens for image in images])
    return [
        Message(m.role, tuple(replace(p, tokens=next(sizes)) if isinstance(p, ImagePart) else p for p in m.parts))
        for m in messages
    ]


def answer_budget(longest: int) -> int:
    """Tokens that an answer may have when it is predicted, where the longest one in training has so many."""
    return 2 * longest + 16


def shortening_note(examples: Sequence[Example], encoded: Sequence[Encoded], task: Task, split: str) -> str | None:
    """One line that says how many texts are shortened, or answered in windows, by class; None when none is."""
    cut = [(e, c) for e, c in zip(examples, encoded, strict=True) if c.removed]
    if not cut:
        return None
    by_class = Counter(task.stratum(example) or "no entity" for example, _ in cut)
    listed = ", ".join(f"{name} {count}" for name, count in by_class.most_common(8))
    listed = f"by class: {listed}{', …' if len(by_class) > 8 else ''}"
    told = f"{len(cut)} of {len(examples)} {split} texts are longer than data.max_length and "
    if task.in_windows and split != "train":
        return told + f"are answered in overlapping windows ({listed})"
    tokens = sum(c.removed for _, c in cut)
    partly = sum(task.seen(example.answer, c.gap) != example.answer for example, c in cut)
    return (
        told
        + f"keep head and tail ({tokens:,} tokens left out; {listed})"
        + (f"; {partly} of their answers name something there" if partly else "")
    )
