"""Scripts to learn from; ``examples.article`` follows the article section by section."""
