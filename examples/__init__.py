"""Scripts to learn from, each run by itself; ``examples.article`` follows the article section by section."""
