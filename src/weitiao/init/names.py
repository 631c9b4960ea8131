"""What a column's name says it holds. To teach another word, add it here.

A name says what its last word says: `review_text`, `reviewText` and `评论内容` all end in a known word.
"""

from __future__ import annotations

import re

WORDS = {
    "text": "text sentence content review comment body message document title headline abstract description tweet "
    "article utterance passage post "
    "文本 内容 正文 评论 评价 句子 语句 新闻 原文 留言 标题 描述 文字 全文 段落",
    "label": "label labels class category categories tag tags sentiment intent topic polarity target "
    "标签 类别 分类 类型 类目 情感 意图 主题 标注 极性 倾向",
    "entities": "entities entity spans ner 实体",
    "question": "question instruction prompt query 问题 指令 提问 提示 提示词",
    "input": "input context 输入 上下文 背景",
    "answer": "answer answers output response completion reply caption captions summary translation "
    "答案 回答 输出 回复 答复 译文 翻译 图说",
    "system": "system 系统提示",
    "image": "image images img photo picture filename 图片 图像 照片",
    "aside": "id idx index no uuid key url link date time timestamp source author user username price "
    "编号 序号 日期 时间 链接 网址 作者 用户 用户名 来源 出处 价格",
}
"""What a column may be → words for it. `aside` is of the row, but neither its question nor its answer."""
BOUNDARY = re.compile(r"[\W_]+|(?<=[a-z])(?=[A-Z])")


def says(name: str, role: str) -> bool:
    """Whether a column's name says that it is `role`."""
    parts = [part.lower() for part in BOUNDARY.split(name) if part]
    if not parts:
        return False
    endings = {parts[-1], "".join(parts[-2:])}  # `file_name` is `filename`
    return any(word in endings or (not word.isascii() and parts[-1].endswith(word)) for word in WORDS[role].split())
