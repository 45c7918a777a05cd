"""The text-only expert of ScienceQA behind an API, as GPT-4 is in the paper: asked once, and again where it and LLaVA differ.

Notable: the same journal, budget, retries and estimate as every other asking (`minillava.asking`); a stopped run goes on and
nothing is paid for twice. Only question, context and options go out, never a picture or the right answer.

    minillava judge scienceqa RESULTS LABELS --ask gpt-4o --out asked
"""

from pathlib import Path

from minillava.asking import (
    NO_LIMIT,
    AskingError,
    Budget,
    ChatClient,
    Journal,
    Price,
    ask_all,
    chat_request,
    confirm,
    estimate_cost,
    request_key,
)
from minillava.data.scienceqa import Problem
from minillava.judging.ensembles import disagreements, expert_messages, final_messages

SHOTS = 2  # solved examples, as in the paper


class ApiExpert:
    """A model that answers problems from their text. client: `asking.client.Client`, or anything with its four names.

    shots: solved problems put first (of the train split; never of those asked about). Raises AskingError where asking cannot
    go on, or where not everything was answered - then the same call goes on.
    """

    def __init__(self, client: ChatClient, folder: Path, shots: list[Problem] = (), budget: Budget = NO_LIMIT,
                 price: Price | None = None, yes: bool = False, concurrency: int = 16, max_tokens: int = 512):  # fmt: skip
        self.client, self.folder, self.shots = client, Path(folder), list(shots)[:SHOTS]
        self.budget, self.price, self.yes = budget, price, yes
        self.concurrency, self.max_tokens = concurrency, max_tokens

    def _ask(self, messages: dict[str, list[dict]]) -> dict[str, str]:
        bodies = {name: chat_request(self.client.model, said, self.max_tokens, 0.0) for name, said in messages.items()}
        with Journal(self.folder) as journal:
            missing = [body for body in bodies.values() if request_key(body) not in journal.replies]
            confirm(
                estimate_cost(missing, self.price, reply=150),
                self.budget,
                self.client.endpoint,
                self.yes or not missing,
            )
            asked = list(bodies.values())
            outcome = ask_all(asked, self.client, journal, self.budget, self.price, self.concurrency, list(bodies))
        lost = [name for name, body in bodies.items() if request_key(body) not in outcome.replies]
        if lost:
            why = outcome.failures.get(request_key(bodies[lost[0]])) or outcome.stopped
            raise AskingError(f"problem {lost[0]} was not answered ({why}), {len(lost)} of {len(bodies)} in all; what was answered is kept, the same command goes on")  # fmt: skip
        return {name: outcome.replies[request_key(body)].text for name, body in bodies.items()}

    def answers(self, problems: dict[str, Problem]) -> dict[str, str]:
        """Its answer to every problem, as text."""
        return self._ask({name: expert_messages(p, self.shots) for name, p in problems.items()})

    def again(self, problems: dict[str, Problem], own: dict[str, str], llava: dict[str, str]) -> dict[str, str]:
        """Its final answer to every disagreement, and to nothing else."""
        differ = disagreements(problems, own, llava)
        return self._ask({name: final_messages(problems[name], own[name], llava[name]) for name in differ})
