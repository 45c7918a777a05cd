"""How one asks for a short and for a long description: this project's own lists, in the spirit of Tables 11 and 12.

Notable: as many as in the paper, eleven and sixteen. One is drawn at random for each record.
"""

BRIEF = (
    "What is this, in a few words?",
    "Put this picture into one sentence.",
    "What would a short caption of this say?",
    "Tell me in brief what is to be seen.",
    "Name the main things here, nothing more.",
    "How would you sum this up?",
    "Say what the picture is about, shortly.",
    "One line about this picture, please.",
    "What does a quick glance at this show?",
    "Give the gist of the picture.",
    "Write a caption that fits on a postcard.",
)
DETAILED = (
    "Tell me everything that can be seen here.",
    "I cannot see the picture. What is in it, from one side to the other?",
    "Go through the picture bit by bit.",
    "What is there, and where is each of the things?",
    "Give me a full account of this scene.",
    "Please describe it so that somebody could draw it.",
    "Look closely: what do you notice, down to the small things?",
    "Take your time and write down all that the picture holds.",
    "How does this place look, and what is in it?",
    "Describe what is in front, what is behind, and how things stand to each other.",
    "Write a long description, leaving nothing out.",
    "What would I see if I stood there and looked around?",
    "Paint this picture for me in words.",
    "List what there is, then say how it all belongs together.",
    "Report on this picture as thoroughly as you can.",
    "Can you explain in depth what is shown?",
)
