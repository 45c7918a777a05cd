"""`minillava serve`: a trained LLaVA behind an OpenAI-compatible address, and a chat page at the same address.

rows.py writes answers side by side, reading.py turns a request into one of them, app.py has the addresses, page.html is
the page. Needs the packages of the extra "serve".
"""
