"""The run's result for people: `html.render_html`, `terminal.render_terminal`, `markdown.render_markdown`.

All three read `edgemill.summary.Summary` and nothing else.
"""
