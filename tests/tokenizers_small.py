"""Small tokenizers of the kinds that language models and encoders have, and chat templates like theirs."""

from __future__ import annotations

from collections.abc import Callable

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "the cat sat on the mat, and the dog ran to the red house in the rain",
    "What is in the picture? A small boat under a bridge; two people look at it.",
    "user system assistant end im start header id turn model tool call think inst",
    "numbers 12 345 6789 and <angle> | bars | and [brackets] are text as well",
] * 3
CONTROL = [
    *("<pad>", "<s>", "</s>", "<unk>"),
    *("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]"),
]
TAGS = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
"""Added tokens that are not special, as Qwen has them."""

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + ('=' + m.name if m.name else '') + '\n' }}"
    "{% if m.reasoning_content %}{{ '<think>\n' + m.reasoning_content + '\n</think>\n\n' }}{% endif %}"
    "{{ m.content }}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% set role = 'model' if m.role == 'assistant' else m.role %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
TOOLS = (
    "{% if tools %}{{ '<|im_start|>system\nTools:' }}{% for t in tools %}{{ '\n' }}{{ t | tojson }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endif %}{% for m in messages %}"
    "{% if m.role == 'tool' %}{{ '<|im_start|>user\n<tool_response>\n' }}{{ m.content }}"
    "{{ '\n</tool_response><|im_end|>\n' }}{% else %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.content %}{{ m.content }}{% endif %}{% for c in m.tool_calls or [] %}{{ '<tool_call>\n' }}"
    '{{ \'{"name": "\' + c.function.name + \'", "arguments": \' }}{{ c.function.arguments | tojson }}'
    "{{ '}\n</tool_call>' }}{% if c.id %}{{ ' #' + c.id }}{% endif %}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "gemma": GEMMA, "mistral": MISTRAL, "tools": TOOLS}


def _finished(inner: Tokenizer, template: str | None, begin: bool = False) -> PreTrainedTokenizerFast:
    inner.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    if begin:
        one = ("<s>", inner.token_to_id("<s>"))
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[one])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        chat_template=template,
    )


def byte_level(template: str | None = CHATML, *, begin: bool = False) -> PreTrainedTokenizerFast:
    """Byte-pair encoding of bytes, as GPT-2, Llama 3 and Qwen have it."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=CONTROL, initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(CORPUS, trainer)
    return _finished(inner, template, begin)


def pieces(template: str | None = CHATML, *, begin: bool = False, scheme: str = "first") -> PreTrainedTokenizerFast:
    """SentencePiece's unigram model, as T5 and XLM-R have it: control tokens are among its pieces."""
    inner = Tokenizer(models.Unigram())
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    inner.decoder = decoders.Metaspace(prepend_scheme=scheme)
    trainer = trainers.UnigramTrainer(
        vocab_size=300,
        special_tokens=CONTROL,
        unk_token="<unk>",
        initial_alphabet=[chr(code) for code in range(33, 127)],
        show_progress=False,
    )
    inner.train_from_iterator(CORPUS, trainer)
    return _finished(inner, template, begin)


def sentencepiece_bpe(template: str | None = MISTRAL, *, begin: bool = True) -> PreTrainedTokenizerFast:
    """SentencePiece's byte-pair encoding as Llama 2 and Mistral have it: a space before every stretch of text."""
    inner = Tokenizer(models.BPE(unk_token="<unk>"))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=CONTROL,
        initial_alphabet=[chr(code) for code in range(33, 127)] + ["\n"],
        show_progress=False,
    )
    inner.train_from_iterator([word for text in CORPUS for word in text.split()], trainer)
    return _finished(inner, template, begin)


def word_pieces(template: str | None = CHATML, *, whole: bool = False) -> PreTrainedTokenizerFast:
    """Word pieces as BERT has them; with ``whole`` punctuation is no word of its own, so a control token is one."""
    inner = Tokenizer(models.WordPiece(unk_token="<unk>"))
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit() if whole else pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=500,
        special_tokens=CONTROL,
        initial_alphabet=[chr(code) for code in range(33, 127)],
        show_progress=False,
    )
    inner.train_from_iterator(CORPUS, trainer)
    return _finished(inner, template)


KINDS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte-level BPE": byte_level,
    "unigram": pieces,
    "unigram, a space before every stretch": lambda: pieces(scheme="always"),
    "SentencePiece BPE": lambda: sentencepiece_bpe(CHATML),
    "word pieces": word_pieces,
    "word pieces of whole words": lambda: word_pieces(whole=True),
}
"""Each kind, with the template of ChatML."""
