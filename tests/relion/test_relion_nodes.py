"""What RELION is told of a job's files, in the words of each version."""

import pytest

from pickeropt.relion.job_outputs import COORDINATES, LOGFILE, PARTICLES, output_nodes, relion_version, version_tag

NODES = [("External/job005/c.star", COORDINATES), ("External/job005/particles.star", PARTICLES)]
NODES += [("External/job005/logfile.pdf", LOGFILE)]

EXPECTED = {
    "3.1": """
# version 30001

data_output_nodes

loop_
_rlnPipeLineNodeName #1
_rlnPipeLineNodeType #2
External/job005/c.star 2
External/job005/particles.star 3
External/job005/logfile.pdf 13

""",
    "4": """
# version 30001

data_output_nodes

loop_
_rlnPipeLineNodeName #1
_rlnPipeLineNodeTypeLabel #2
External/job005/c.star MicrographsCoords.star.relion.autopick
External/job005/particles.star ParticlesData.star.relion
External/job005/logfile.pdf LogFile.pdf.relion

""",
    "5": """
# version 50001

data_output_nodes

loop_
_rlnPipeLineNodeName #1
_rlnPipeLineNodeTypeLabel #2
External/job005/c.star MicrographCoordsGroup.star.relion.autopick
External/job005/particles.star ParticleGroupMetadata.star.relion
External/job005/logfile.pdf LogFile.pdf.relion

""",
}


@pytest.mark.parametrize("version", EXPECTED)
def test_the_file_of_nodes(version):
    assert output_nodes(NODES, version).decode() == EXPECTED[version]


PIPELINES = {
    "3.1": "# version 30001\n\ndata_pipeline_processes\n\nloop_\n_rlnPipeLineProcessName #1\n"
    "_rlnPipeLineProcessType #3\nExternal/job005/ 99\n",
    "4": "# version 30001\n\ndata_pipeline_processes\n\nloop_\n_rlnPipeLineProcessName #1\n"
    "_rlnPipeLineProcessTypeLabel #3\nExternal/job005/ relion.external\n",
    "5": "# version 50001\n\ndata_pipeline_processes\n\nloop_\n_rlnPipeLineProcessName #1\n"
    "_rlnPipeLineProcessTypeLabel #3\nExternal/job005/ relion.external\n",
}


@pytest.mark.parametrize("version", PIPELINES)
@pytest.mark.parametrize("tag", [30001, 50001])
def test_the_projects_pipeline_says_which_relion_it_is(tmp_path, version, tag):
    (tmp_path / "default_pipeline.star").write_text(PIPELINES[version])
    given = tmp_path / "autopick.star"
    given.write_text(f"# version {tag}\n\ndata_coordinate_files\n")
    assert relion_version(given, True, tmp_path / "default_pipeline.star") == version


@pytest.mark.parametrize(
    ("content", "is_list", "version"),
    [
        ("\n# version 50001\n\ndata_particles\n", False, "5"),
        ("\n# version 50001\n\ndata_coordinate_files\n", True, "5"),
        ("\n# version 30001\n\ndata_coordinate_files\n", True, "4"),
        ("\n# version 30001\n\ndata_particles\n", False, "3.1"),
        ("CtfFind/job003/micrographs_ctf.star", False, "3.1"),
        ("", False, "3.1"),
    ],
)
def test_outside_a_project_the_input_says_it(tmp_path, content, is_list, version):
    (tmp_path / "given.star").write_text(content)
    assert relion_version(tmp_path / "given.star", is_list, tmp_path / "no_pipeline.star") == version


@pytest.mark.parametrize(
    ("content", "tag"),
    [(b"", 30000), (b"data_\n", 30000), (b"\n# version 30001\n", 30001), (b"#version 50001\n", 50001)],
)
def test_version_tags(content, tag):
    assert version_tag(content) == tag
