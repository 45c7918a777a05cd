"""The words of the course, English and Chinese, with the notebook that explains each.

Notable: the "New words" at the top of every notebook and the glossary are made from this one table, and a test compares
them. The Chinese terms are those that the field writes.

    python -m minillava.course.terms notebooks    # writes notebooks/glossary.md and the cells with new words
"""

import sys
from pathlib import Path
from typing import NamedTuple

from minillava.exercises.build import read_notebook, write_notebook

CELL = "new-words"  # the id of the cell that `add_new_words` writes
AFTER = "c01"  # the id of the cell that it follows: what one can do after the notebook
HEAD = "| word | 中文 | in plain words | 简单说 |\n|---|---|---|---|\n"


class Term(NamedTuple):
    """notebook: where it is explained, such as "03"."""

    notebook: str
    english: str
    chinese: str
    meaning: str
    meaning_in_chinese: str


# fmt: off
TERMS = tuple(Term(*(part.strip() for part in line.split("|"))) for line in """
00 | vision tower | 视觉编码器 | the eye: the network that turns a picture into vectors | 眼睛：把图片变成向量的网络
00 | projector | 投影矩阵 W | the translator: one matrix from picture vectors to word vectors | 翻译官：把图片向量变成词向量的矩阵
00 | language model | 语言模型 | the brain: it reads vectors and predicts the next word | 大脑：读入向量，预测下一个词
00 | patch | 图块 | one small square of the picture; it becomes one vector | 图片中的一小块，对应一个向量
00 | parameter | 参数 | one number that training may change | 训练可以改变的一个数
00 | frozen | 冻结 | not changed by training | 训练时保持不变
00 | instruction | 指令 | what the user asks the model to do, in words | 用户用文字提出的要求
00 | control | 对照 | the same test without what should help, such as the picture | 去掉关键因素（如图片）的同一测试
00 | relative score | 相对得分 | the candidate's mean mark, as a percentage of the reference's | 候选平均分占参考平均分的百分比
00 | held out | 留出 | kept away from all training, so that one can test with it | 不用于训练，留作测试
01 | captioner | 图像描述模型 | a model that describes a picture, whatever one asks | 无论问什么都只描述图片的模型
01 | instruction tuning | 指令微调 | training on pairs of instruction and answer | 用“指令—回答”对训练模型
01 | prompt tuning | 提示微调 | training a few extra input vectors, nothing else | 只训练少量额外的输入向量
01 | end to end | 端到端 | all parts are trained as one model | 所有部分作为一个模型一起训练
01 | benchmark | 基准测试 | a fixed set of questions that models are compared on | 用来比较模型的一组固定问题
01 | CC3M | CC3M 数据集 | three million pictures from the web with their captions | 三百万张带说明文字的网络图片
02 | caption | 图片说明 | one sentence that says what a picture shows | 描述图片内容的一句话
02 | box | 边界框 | four numbers that say where a thing is | 表示物体位置的四个数
02 | COCO | COCO 数据集 | photographs with five captions and boxes each, made by people | 带五条人工描述和边界框的照片
02 | teacher | 教师模型 | who writes the training data: GPT-4, or a rule offline | 编写训练数据的模型（GPT-4 或离线规则）
02 | few-shot | 少样本示例 | examples that are sent along, so that the form is imitated | 随请求附上的几个示例
02 | system message | 系统消息 | the first text of a conversation; it says how to behave | 对话开头，规定模型行为的文字
02 | complex reasoning | 复杂推理 | questions that need a reason, which no caption states | 需要推理、描述中没有直接答案的问题
02 | record | 数据记录 | one picture's name with its questions and answers | 一张图片及其问答
03 | token | 词元 | a piece of text that has a number: a word or a part of one | 有编号的文本片段：词或词的一部分
03 | vocabulary | 词表 | all tokens that a model knows | 模型认识的全部词元
03 | embedding | 词嵌入 | the vector that stands for a token | 代表一个词元的向量
03 | class token | 类别词元 | an extra row that stands for the whole picture; LLaVA drops it | 代表整张图的附加行，LLaVA 不用它
03 | grid features | 网格特征 | one vector per patch, in the picture's order | 每个图块一个向量
03 | splice | 拼接 | put the picture's rows where the image token stands | 用图片的各行替换图像词元
03 | logits | 未归一化得分 | one score per word of the vocabulary, before they are made shares | 每个词的得分，尚未变成概率
03 | attention | 注意力 | how much each row reads from each row before it | 每一行从之前各行读取多少
03 | Q-Former | Q-Former 模块 | BLIP-2's part at W's place: learned questions read the picture | BLIP-2 中代替 W 的模块
03 | gated cross-attention | 门控交叉注意力 | Flamingo's way: extra layers for the picture, opened slowly | Flamingo 读取图片的附加层
04 | template | 对话模板 | how roles, questions and answers are put in one text | 把角色、问题、回答排成一段文本的格式
04 | label | 标签 | what a position should predict; IGNORE where it is not scored | 该位置应预测的词元
04 | loss | 损失 | how unlikely the model found the right tokens; small is good | 模型觉得正确词元有多不可能，越小越好
04 | mask | 掩码 | which positions count, or who may look at whom | 规定哪些位置有效、谁能看到谁
04 | tokenizer | 分词器 | it cuts text into tokens and puts it together again | 把文本切成词元的工具
04 | epoch | 训练轮次 | one pass over all training data | 把全部训练数据过一遍
04 | stage 1 | 第一阶段：特征对齐 | only W trains, on captions: feature alignment | 只训练 W：特征对齐
04 | stage 2 | 第二阶段：端到端微调 | W and the language model train, on instructions | 训练 W 和语言模型
05 | reference | 参考答案 | the answer of a text-only GPT-4, compared with | 只读文本的 GPT-4 的回答
05 | judge | 评审模型 | who marks two answers from 1 to 10 | 给两个回答打 1 到 10 分的模型
05 | interval | 置信区间 | where the true value lies, in 95 of 100 repetitions | 重复一百次约九十五次包含真值的范围
05 | standard error | 标准误 | how far a measured share strays by chance | 测量值因偶然而偏离的幅度
05 | bag of patches | 图块袋 | parts are seen, but not how they belong together | 看到了部分，却不知它们如何组合
05 | ensemble | 模型集成 | one answer made from those of two models | 合并两个模型的回答
05b | reading note | 阅读笔记 | what a reader takes from a paper, claim by claim, in own words | 读者用自己的话逐条记下的论文要点
05b | misreading | 误读 | a claim that the paper's own table or text contradicts | 与论文的表格或正文相矛盾的说法
06 | vision transformer | 视觉 Transformer | a transformer that reads patches instead of words | 读图块而非单词的 Transformer
06 | block | 网络块 | attention and a small network, each added to the rows | 注意力加小网络，结果加回各行
06 | head | 注意力头 | one of several attentions side by side | 并行的多个注意力之一
06 | contrastive | 对比学习 | trained so that matching pairs are near, others far | 让匹配的靠近、不匹配的远离
06 | temperature | 温度 | a number that sharpens or flattens a choice | 使选择更尖锐或更平缓的数
06 | softmax | softmax 函数 | it turns scores into shares that add up to 1 | 把得分变成和为 1 的份额
06 | MLP | 多层感知机 | two matrices with a bend between them, for each row alone | 两个矩阵加一个非线性
07 | decoder | 解码器 | a model that predicts the next token from those before it | 由前文预测下一个词元的模型
07 | RMSNorm | 均方根归一化 | it brings every row to the same size | 把每一行缩放到同样大小
07 | RoPE | 旋转位置编码 | positions told by turning pairs of numbers | 用旋转数对来表示位置
07 | cache | 键值缓存 | what earlier tokens left for later ones, kept | 保存之前词元的计算结果
07 | greedy | 贪心解码 | always take the likeliest token | 每步取最可能的词元
07 | padding | 填充 | filler that brings the rows of a batch to one length | 把一批序列补到等长的占位
08 | linear | 线性 | a matrix and nothing else: no bend anywhere | 只有一个矩阵，没有非线性
08 | cosine | 余弦相似度 | how alike the directions of two vectors are, from -1 to 1 | 两个向量方向的相似程度
09 | gradient | 梯度 | which way each parameter should move to lower the loss | 参数应朝哪个方向变化
09 | nats | 奈特 | the unit of a loss with natural logarithms; 0.69 is one coin flip | 自然对数下损失的单位
09 | cross-entropy | 交叉熵 | minus the logarithm of the right token's probability | 正确词元概率的负对数
10 | noun phrase | 名词短语 | a noun with its adjectives, such as "red car" | 名词及其修饰语
10 | concept filter | 概念过滤 | it keeps captions so that rare things stay and common ones are thinned | 保留罕见概念、减少常见概念的筛选
10 | seed | 随机种子 | the number that fixes all random choices | 固定所有随机选择的数
10b | budget | 预算 | the most that all requests together may cost | 全部请求花费的上限
10b | back-off | 退避重试 | wait before asking again; longer each time | 重试之前等待，时间逐次加长
10b | journal | 应答日志 | a file of all replies so far, one per line | 逐行记录全部应答的文件
10b | hash | 哈希值 | a short number made from a text; another text, another number | 由文本算出的短编号，文本不同编号就不同
10b | quarantine | 隔离文件 | a file of replies that did not become data, with reasons | 存放未采用的应答及其原因的文件
11 | optimizer | 优化器 | the rule that turns gradients into steps; here Adam | 把梯度变成更新步的规则
11 | warm-up | 预热 | the learning rate rises over the first steps | 学习率在开头逐步上升
11 | checkpoint | 检查点 | everything needed to resume, on disk | 保存在磁盘上的训练状态
12 | forgetting | 灾难性遗忘 | what was learned before gets lost by new training | 新训练使旧知识丢失
12 | LoRA | 低秩适配 | two thin matrices are trained beside a frozen one | 在冻结矩阵旁训练两个小矩阵
12 | rank | 秩 | how narrow those two matrices are: 8 numbers per row, say | 这两个小矩阵的窄边宽度
12 | FSDP | 全分片数据并行 | each GPU keeps a part of the model and borrows the rest | 每张 GPU 只存模型的一部分
12 | bf16 | bfloat16 半精度 | numbers of 16 bits: wide range, few digits | 16 位浮点数，范围大、精度低
13 | hallucination | 幻觉 | saying with confidence what is not in the picture | 自信地说出图中没有的东西
13 | sampling | 采样解码 | drawing the next token by chance, by its probability | 按概率随机抽取下一个词元
14 | bootstrap | 自助法 | drawing the same questions again and again to see the spread | 反复重抽样本以估计波动
14 | ablation | 消融实验 | leave one thing out, and see what it was worth | 去掉一项，看它值多少
14 | order bias | 顺序偏差 | a judge marks the first answer higher because it is first | 评审偏向排在前面的回答
15 | ScienceQA | ScienceQA 数据集 | 21 thousand school questions with choices, some with a picture | 两万多道学校选择题
15 | NAT | 自然科学题 | natural science; SOC is social science, LAN language | 自然科学；SOC 社会，LAN 语言
15 | TXT | 带文字背景的题 | questions with a text; IMG with a picture, NO with neither | 带文字；IMG 带图，NO 都没有
15 | complement | 互补集成 | LLaVA answers where GPT-4 gives no answer | GPT-4 无答案时用 LLaVA 的
16 | response-format prompt | 回答格式提示 | a sentence with a question that says how to answer, as in one word | 说明回答形式的一句话
17 | meta | meta 设备 | tensors with a shape and no numbers: sizes without memory | 只有形状、没有数据的张量
17 | shard | 分片 | one of the files, or of the devices, that share a large model | 大模型被分成的若干部分之一
17 | sub-word | 子词 | a frequent piece of a word: one token of a large vocabulary | 大词表中常见的词片段
17 | marker tokens | 标记词元 | two extra tokens around a picture, in some published models | 部分模型在图片前后加的两个词元
""".strip().splitlines())
# fmt: on


def _row(term: Term) -> str:
    return f"| **{term.english}** | {term.chinese} | {term.meaning} | {term.meaning_in_chinese} |\n"


def new_words(notebook: str, chinese: bool = False) -> str:
    """The Markdown of a notebook's new words, by its number, such as "03". chinese: with a Chinese title."""
    rows = "".join(_row(term) for term in TERMS if term.notebook == notebook)
    title = "**本章新词**（[全部词汇](glossary.md)）" if chinese else "**New words** ([all of them](glossary.md))"
    return f"{title}\n\n{HEAD}{rows}".rstrip("\n")


def glossary() -> str:
    """notebooks/glossary.md: every term in alphabetical order, with its notebook."""
    rows = "".join(f"| {t.notebook} {_row(t)}" for t in sorted(TERMS, key=lambda t: t.english.lower()))
    head = HEAD.replace("| word", "| notebook | word").replace("\n|---", "\n|---|---", 1)
    return (
        "# Glossary · 词汇表\n\nWritten by `python -m minillava.course.terms notebooks` and held by a test; do not edit "
        f"it.\nThe number is that of the notebook that explains the word.\n\n{head}{rows}"
    )


def add_new_words(path: Path) -> None:
    """Write the cell with a notebook's new words, below what one can do after it."""
    notebook = read_notebook(path)
    text = new_words(path.name.split("_")[0]).splitlines(keepends=True)
    cells = [cell for cell in notebook["cells"] if cell.get("id") != CELL]
    at = next(n for n, cell in enumerate(cells) if cell.get("id") == AFTER)
    cells.insert(at + 1, {"cell_type": "markdown", "id": CELL, "metadata": {}, "source": text})
    notebook["cells"] = cells
    write_notebook(notebook, path)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for notebook in sorted(folder.glob("[0-9][0-9]*_*.ipynb")):
        add_new_words(notebook)
    (folder / "glossary.md").write_text(glossary(), encoding="utf-8")
