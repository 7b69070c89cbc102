"""A node is added without a warm-up, whatever the run was told."""

from run import Run


def _add_cold(self, url):
    self.client.add_node(url)


Run.add_node = _add_cold
