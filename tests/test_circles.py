"""No file of the package imports, by whatever way, a file that imports it."""

from __future__ import annotations

import grimp
import networkx as nx


def test_files_import_each_other_in_no_circle() -> None:
    # Imports for types count too: whoever reads one file of a circle has to read all of them.
    graph = grimp.build_graph("powergrid", cache_dir=None)
    imports: nx.DiGraph[str] = nx.DiGraph()
    imports.add_edges_from(
        (module, other) for module in graph.modules for other in graph.find_modules_directly_imported_by(module)
    )
    assert imports.number_of_edges() > 300  # the whole package was read
    assert [sorted(each) for each in nx.strongly_connected_components(imports) if len(each) > 1] == []
