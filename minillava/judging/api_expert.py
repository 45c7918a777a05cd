"""ScienceQA's text-only expert behind an API, as GPT-4 in the paper: asked once, and again where LLaVA disagrees.

Replies are kept in a journal (`minillava.asking`), so a stopped run resumes and nothing is paid for twice. Only
question, context and options are sent, never a picture or the right answer.

    minillava judge scienceqa RESULTS LABELS --ask gpt-4o --out asked
"""

from pathlib import Path

from minillava.asking import AskingError, ChatClient, ask_with_consent, chat_request, request_key
from minillava.data.scienceqa import Problem
from minillava.judging.ensembles import disagreements, expert_messages, final_messages

SHOTS = 2  # solved examples, as in the paper


class ApiExpert:
    """A model that answers problems from their text.

    folder: of the journal. shots: solved problems to put first, of the train split and never among those asked about.
    terms: budget, price, concurrency and yes of `ask_with_consent`.
    Raises AskingError where asking cannot continue, or an answer is missing at the end; the same call then resumes.
    """

    def __init__(self, client: ChatClient, folder: Path, shots: list[Problem] = (), max_tokens=512, **terms):
        self.client, self.folder, self.shots = client, Path(folder), list(shots)[:SHOTS]
        self.max_tokens, self.terms = max_tokens, terms

    def _ask(self, messages: dict[str, list[dict]]) -> dict[str, str]:
        bodies = {name: chat_request(self.client.model, m, self.max_tokens, 0.0) for name, m in messages.items()}
        outcome = ask_with_consent([*bodies.values()], [*bodies], 150, self.folder, self.client, **self.terms)
        keys = {name: request_key(body) for name, body in bodies.items()}
        missing = [name for name, key in keys.items() if key not in outcome.replies]
        cut = {key for key, reply in outcome.replies.items() if reply.finish == "length" and not reply.text.strip()}
        if cut:
            name = next(name for name, key in keys.items() if key in cut)
            what = f"problem {name}: reasoning took all of the {self.max_tokens:,} tokens ({len(cut)} of {len(keys)})"
            raise AskingError(f"{what}; ask with a larger --max-tokens")
        if missing:
            why = outcome.failures.get(keys[missing[0]]) or outcome.stopped
            count = f"{len(missing)} of {len(keys)} answers are missing"
            raise AskingError(f"problem {missing[0]} was not answered ({why}); {count}; run the same command again")
        return {name: outcome.replies[key].text for name, key in keys.items()}

    def answers(self, problems: dict[str, Problem]) -> dict[str, str]:
        """Its answer to every problem, as text."""
        return self._ask({name: expert_messages(p, self.shots) for name, p in problems.items()})

    def final_answers(self, problems: dict[str, Problem], own: dict[str, str], llava: dict[str, str]) -> dict[str, str]:
        """Its final answer to each problem where its `own` answer and LLaVA's differ."""
        differ = disagreements(problems, own, llava)
        return self._ask({name: final_messages(problems[name], own[name], llava[name]) for name in differ})
