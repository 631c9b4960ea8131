"""The one renderer: messages → control ids and stretches of text → token ids, for training and prediction alike.

A stretch is a header with the whole content behind it, encoded in one call: that is what the model's own chat template
does, and it is not the same as encoding the content apart (2–12 % of rows differ).

    ChatML   <|im_start|> "system\\n{content}" <|im_end|> "\\n" <|im_start|> "user\\n{content}" <|im_end|> "\\n"
             <|im_start|> "assistant\\n" | answer <|im_end|>
    Qwen-VL  … <|im_start|> "user\n" <|vision_start|> <|image_pad|> × its tokens <|vision_end|> "{content}" <|im_end|> …
    GLM-4    [gMASK] <sop> <|system|> "\\n{content}" <|user|> "\\n{content}" <|assistant|> | "\\n" answer <|user|>
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain

from weitiao.errors import RenderError
from weitiao.families.tokenizer import TextTokenizer
from weitiao.types import ImagePart, Message

Piece = int | str
"""A control id, or a stretch of text."""


class ChatFormat(ABC):
    """How one kind of model writes a conversation. Subclasses give `pieces` and `stop`."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.tokenizer = tokenizer
        # Instructions and headers repeat for every row.
        self._encode_repeated = lru_cache(maxsize=256)(lambda text: tuple(tokenizer.encode(text)))

    @property
    @abstractmethod
    def stop(self) -> int:
        """Id that ends an answer: trained behind it, and what prediction stops at."""

    @property
    def stops(self) -> tuple[int, ...]:
        """Every id that ends an answer when the model writes freely; `stop` first."""
        return (self.stop,)

    @property
    def lead(self) -> tuple[int, ...]:
        """Ids that stand before every answer: supervised in training, given in prediction."""
        return ()

    @abstractmethod
    def pieces(self, messages: Sequence[Message]) -> list[Piece]:
        """The prompt: every message, then the header of the answer."""

    @property
    def image(self) -> int:
        """Id that stands once for each token of an image. RenderError when the model reads no images."""
        raise RenderError("the model reads text alone; choose one that reads images, such as Qwen/Qwen2-VL-2B-Instruct")

    def image_pieces(self, tokens: int) -> list[Piece]:
        """An image in a message."""
        return [self.image] * tokens

    def stretches(self, header: str, message: Message) -> list[Piece]:
        """A message's header and content: one stretch, or more where images part it."""
        pieces: list[Piece] = []
        text = header
        for part in message.parts:
            if isinstance(part, ImagePart):
                pieces += [*([text] if text else []), *self.image_pieces(part.tokens)]
                text = ""
            else:
                text += part.text
        return [*pieces, text] if text else pieces

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the prompt.

        messages: a system message, then user and assistant messages in turn; RenderError otherwise.
        """
        return list(self.prompts_ids([messages])[0])

    def prompts_ids(self, conversations: Sequence[Sequence[Message]]) -> list[tuple[int, ...]]:
        """The same of many, whose texts are encoded at once, on all cores."""
        prompts = list(map(self._prompt_pieces, conversations))
        encode: Callable[[str], Sequence[int]] = self._encode_repeated
        if len(prompts) > 1:
            texts = list({piece for pieces in prompts for piece in pieces if isinstance(piece, str)})
            encode = dict(zip(texts, self.tokenizer.encode_all(texts), strict=True)).__getitem__
        return [
            tuple(chain.from_iterable((piece,) if isinstance(piece, int) else encode(piece) for piece in pieces))
            for pieces in prompts
        ]

    def _prompt_pieces(self, messages: Sequence[Message]) -> list[Piece]:
        turns = [message.role for message in messages]
        wanted = ["system", *["user", "assistant"] * (len(turns) // 2)][: len(turns)]
        if not turns or len(turns) % 2 or turns != wanted:
            raise RenderError(
                "a prompt is a system message, then user and assistant messages in turn, a user's last; "
                f"found {', '.join(turns) or 'none'}"
            )
        return self.pieces(messages)

    def answer_ids(self, text: str) -> list[int]:
        """Token ids of an answer, without what leads to it and without the stop."""
        return self.tokenizer.encode(text)

    @property
    def hash(self) -> str:
        """Names the format: it changes when a prompt of the same messages would."""
        probe = [Message.of("system", "s"), Message.of("user", "u")]
        written = ([*self.prompt_ids(probe), *self.lead], self.stop)
        return hashlib.sha256(repr(written).encode()).hexdigest()[:16]


class ChatML(ChatFormat):
    """The format of Qwen and of models trained in its manner."""

    @property
    def stop(self) -> int:
        return self.tokenizer.control("<|im_end|>")

    def pieces(self, messages: Sequence[Message]) -> list[Piece]:
        start = self.tokenizer.control("<|im_start|>")
        pieces: list[Piece] = []
        for message in messages:
            pieces += [start, *self.stretches(f"{message.role}\n", message), self.stop, "\n"]
        return [*pieces, start, "assistant\n"]


class ChatMLWithImages(ChatML):
    """ChatML of Qwen2-VL and Qwen2.5-VL."""

    @property
    def image(self) -> int:
        return self.tokenizer.control("<|image_pad|>")

    def image_pieces(self, tokens: int) -> list[Piece]:
        start, end = map(self.tokenizer.control, ("<|vision_start|>", "<|vision_end|>"))
        return [start, *[self.image] * tokens, end]


class ChatMLWithoutThinking(ChatML):
    """ChatML of Qwen3 with `enable_thinking=False`: an empty think block, which belongs to the prompt."""

    def pieces(self, messages: Sequence[Message]) -> list[Piece]:
        think, end = self.tokenizer.control("<think>"), self.tokenizer.control("</think>")
        return [*super().pieces(messages), think, "\n\n", end, "\n\n"]


class Glm4(ChatFormat):
    """The format of GLM-4. No line break follows `<|assistant|>`: the model writes it, so it is supervised, as in the
    publisher's own fine-tuning. As in the model's template, a message without content is left out."""

    @property
    def stop(self) -> int:
        return self.tokenizer.control("<|user|>")

    @property
    def stops(self) -> tuple[int, ...]:
        return (self.stop, *map(self.tokenizer.control, ("<|endoftext|>", "<|observation|>")))

    @property
    def lead(self) -> tuple[int, ...]:
        return self._encode_repeated("\n")

    def pieces(self, messages: Sequence[Message]) -> list[Piece]:
        control = self.tokenizer.control
        pieces: list[Piece] = [control("[gMASK]"), control("<sop>")]
        for message in messages:
            if not message.empty:
                pieces += [control(f"<|{message.role}|>"), *self.stretches("\n", message)]
        return [*pieces, control("<|assistant|>")]
