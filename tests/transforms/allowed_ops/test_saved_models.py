"""Hostile modules: a forbidden operation is found at every place, and genuine modules have none."""

from pathlib import Path

import pytest

from beamlabel.transforms.allowed_ops.operations import allowed_operations, unsafe_in_graph
from beamlabel.transforms.allowed_ops.saved_model import unsafe_in_saved_model

tf = pytest.importorskip("tensorflow")

from tensorflow.core.protobuf.saved_model_pb2 import SavedModel  # noqa: E402

from support.hostile_modules import add_node, genuine, save_with_saver  # noqa: E402

# Each of these has side effects; TensorFlow's registry calls a third of them stateless.
HOSTILE = (
    "WriteFile", "ReadFile", "MatchingFiles", "PrintV2", "Print", "PyFunc", "PyFuncStateless", "EagerPyFunc",
    "Save", "SaveSlices", "Restore", "RestoreSlice", "SaveDataset", "SaveDatasetV2", "DistributedSave", "DumpTensor",
    "ImmutableConst", "GenerateVocabRemapping", "LoadAndRemapMatrix", "DecodeProtoV2", "EncodeProto", "Skipgram",
    "FixedUnigramCandidateSampler", "WholeFileReaderV2", "TextLineReader", "TFRecordReaderV2", "LMDBReader",
    "ReaderReadV2", "TextLineDataset", "TFRecordDatasetV2", "MatchingFilesDataset", "SnapshotDatasetV2", "SqlDataset",
    "DataServiceDatasetV4", "RegisterDatasetV2", "MapDataset", "IteratorV2", "CreateSummaryFileWriter",
    "WriteSummary", "WriteRawProtoSummary", "CreateSummaryDbWriter", "DebugIdentity", "DebugIdentityV2",
    "DebugIdentityV3", "DebugNumericSummary", "DebugNanCount", "Copy", "CopyHost", "CustomAggregator",
    "CalibrationStatisticsSaver", "RpcClient", "RpcCall", "RpcServer", "RemoteCall", "Send", "Recv", "_Send",
    "_HostRecv", "CollectiveReduceV2",
    "NcclAllReduce", "XlaCallModule", "XlaCustomCallV2", "XlaLaunch", "XlaHostCompute",
    "MlirPassthroughOp", "TPUExecute", "ConfigureDistributedTPU", "Abort", "FileSystemSetConfiguration",
    "GetSessionTensor", "Stage", "QueueDequeueV2", "Batch", "BatchFunction", "InitializeTableFromDataset",
    "SdcaOptimizer", "WorkerHeartbeat", "NoSuchOperation",
)  # fmt: skip


def found(saved_model):
    return {(one.what, one.place) for one in unsafe_in_saved_model(saved_model)}


def function(meta_graph, name, *arguments):
    """Adds a function without nodes to the meta graph's library."""
    added = meta_graph.graph_def.library.function.add()
    added.signature.name = name
    for argument in arguments:
        added.signature.input_arg.add(name=argument)
    return added


def test_a_genuine_module_is_allowed():
    assert found(genuine()) == set()


@pytest.mark.parametrize("op", HOSTILE)
def test_operations_with_side_effects_are_not_allowed(op):
    module = genuine()
    add_node(module.meta_graphs[-1], op)
    function(module.meta_graphs[0], "body").node_def.add(name="inner", op=op)
    places = {"graph {train}, node 'hostile'", "function 'body', node 'inner'"}
    assert found(module) == {(op, place) for place in places}
    assert [one.what for one in unsafe_in_graph(module.meta_graphs[0].graph_def) if one.what == op] == [op]


def test_the_allowed_operations_are_tensorflows():
    from tensorflow.python.framework import op_def_registry

    allowed = allowed_operations()
    definitions = {name: op_def_registry.get(name) for name in allowed}
    assert [name for name, definition in definitions.items() if definition is None] == []
    assert not allowed & set(HOSTILE)
    stateful = {name for name, definition in definitions.items() if definition.is_stateful}
    memory = ("Variable", "Var", "Resource", "Assign", "HashTable", "Table", "TensorArray", "Stack", "Rng")
    control = {"Assert", "Case", "If", "While", "StatefulPartitionedCall", "CheckNumerics", "CheckNumericsV2"}
    random = ("Random", "Stateful", "Uniform", "Normal", "Multinomial", "Distorted", "NonDeterministic")
    others = {name for name in stateful - control if not any(word in name for word in (*memory, *random))}
    assert others == {"DisableCopyOnRead", "GuaranteeConst"}


def test_a_function_with_the_name_of_an_operation_is_no_way_around():
    module = genuine()
    function(module.meta_graphs[0], "WriteFile")
    function(module.meta_graphs[0], "swish_f32")
    add_node(module.meta_graphs[0], "WriteFile")
    add_node(module.meta_graphs[0], "swish_f32", name="swish")
    assert found(module) == {("WriteFile", "graph {}, node 'hostile'")}


# --- the checkpoint


@pytest.fixture(scope="module")
def with_saver(tmp_path_factory):
    """Builds the ``SavedModel`` of a module whose graph has a saver."""
    path = tmp_path_factory.mktemp("saver") / "m"
    data = (Path(save_with_saver(path)) / "saved_model.pb").read_bytes()
    return lambda: SavedModel.FromString(data)


@pytest.mark.parametrize("references", [True, False])
def test_a_saver_of_version_1_is_allowed(tmp_path, references):
    path = Path(save_with_saver(tmp_path / "m", references=references))
    module = SavedModel.FromString((path / "saved_model.pb").read_bytes())
    ops = {node.op for node in module.meta_graphs[0].graph_def.node}
    assert {"SaveV2", "RestoreV2", "MergeV2Checkpoints"} <= ops
    assert found(module) == set()


def restore(graph, path, name="hostile"):
    return add_node(graph, "RestoreV2", name=name, text=path)


def run_by_main_op(graph, name):
    graph.collection_def["saved_model_main_op"].node_list.value.append(name)


def run_by_legacy_init(graph, name):
    graph.collection_def["legacy_init_op"].node_list.value.append(name)


def run_by_signature(graph, name):
    graph.signature_def["default"].outputs["more"].name = f"{name}:0"


def run_by_init_signature(graph, name):
    graph.signature_def["__saved_model_init_op"].outputs["__saved_model_init_op"].name = name


def run_by_local_variable(graph, name):
    from tensorflow.core.framework.variable_pb2 import VariableDef

    text = VariableDef(variable_name="v:0", initializer_name=name).SerializeToString()
    graph.collection_def["local_variables"].bytes_list.value.append(text)


def run_by_table(graph, name):
    graph.collection_def["table_initializer"].node_list.value.append(name)


def run_by_update(graph, name):
    graph.collection_def["update_ops"].node_list.value.append(name)


def run_by_asset(graph, name):
    graph.asset_file_def.add(filename="labels.txt").tensor_info.name = f"{name}:0"


WAYS = (
    run_by_main_op, run_by_legacy_init, run_by_signature, run_by_init_signature, run_by_local_variable, run_by_table,
    run_by_update, run_by_asset,
)  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("op", ["RestoreV2", "SaveV2", "MergeV2Checkpoints"])
def test_the_caller_of_a_savers_node_is_named(way, op, with_saver):
    graph = (module := with_saver()).meta_graphs[0]
    name = next(node.name for node in graph.graph_def.node if node.op == op)
    add_node(graph, "NoOp", f"^{name}", name="behind")
    way(graph, "behind")
    assert (op, f"graph {{serve}}, node {name!r}") in found(module)
    assert any("would run it" in one.why for one in unsafe_in_saved_model(module))


@pytest.mark.parametrize("path", ["/etc/passwd", "model2", "../variables/variables", "gs://bucket/stolen"])
def test_a_restore_of_other_files_is_not_allowed(path, with_saver):
    graph = (module := with_saver()).meta_graphs[0]
    restore(graph, path)
    assert found(module) == {("RestoreV2", "graph {serve}, node 'hostile'")}


def test_the_restore_of_the_checkpoint_reads_no_other_file(with_saver):
    graph = (module := with_saver()).meta_graphs[0]
    restore(graph, "/etc/passwd")
    node(graph, graph.saver_def.restore_op_name).input.append("^hostile")
    assert found(module) == {("RestoreV2", "graph {serve}, node 'hostile'")}


def test_the_restore_of_the_checkpoint_saves_nothing(with_saver):
    graph = (module := with_saver()).meta_graphs[0]
    node(graph, graph.saver_def.restore_op_name).input.append(f"^{graph.saver_def.save_tensor_name[:-2]}")
    assert {what for what, _ in found(module)} == {"SaveV2", "MergeV2Checkpoints"}


def test_a_file_name_that_is_computed_is_not_the_checkpoints(with_saver):
    graph = (module := with_saver()).meta_graphs[0]
    name = graph.saver_def.filename_tensor_name
    add_node(graph, "StringJoin", name, name="joined", text="/other/")
    restoring = next(one for one in graph.graph_def.node if one.op == "RestoreV2")
    restoring.input[0] = "joined"
    assert ("RestoreV2", f"graph {{serve}}, node {restoring.name!r}") in found(module)


def test_a_saver_that_was_left_behind_is_allowed_and_one_that_knows_a_file_is_not(with_saver):
    graph = (module := with_saver()).meta_graphs[0]
    restore(graph, "model", name="save_old/RestoreV2")
    add_node(graph, "SaveV2", name="save_old/SaveV2", text="model")
    assert found(module) == set()
    add_node(graph, "SaveV2", name="save_bad/SaveV2", text="/home/somebody/.profile")
    assert found(module) == {("SaveV2", "graph {serve}, node 'save_bad/SaveV2'")}


def test_what_would_set_a_variable_before_its_training_is_allowed(with_saver):
    from tensorflow.core.framework.variable_pb2 import VariableDef

    graph = (module := with_saver()).meta_graphs[0]
    restore(graph, "/their/checkpoint", name="checkpoint_initializer")
    add_node(graph, "Assign", "v", "checkpoint_initializer", name="v/Assign")
    assert len(found(module)) == 1
    text = VariableDef(variable_name="v:0", initializer_name="v/Assign").SerializeToString()
    graph.collection_def["variables"].bytes_list.value.append(text)
    assert found(module) == set()


def node(graph, name):
    return next(one for one in graph.graph_def.node if one.name == name)


# --- functions that save and restore, as in TensorFlow 2


@pytest.fixture
def of_version_2(tmp_path):
    from support.tf_modules import save_two_outputs

    path = save_two_outputs(tmp_path / "m")
    module = SavedModel.FromString((tmp_path / "m" / "saved_model.pb").read_bytes())
    assert path and found(module) == set()
    return module


def function_with(graph, op):
    for one in graph.graph_def.library.function:
        if any(node.op == op for node in one.node_def):
            return one
    raise AssertionError(op)


@pytest.mark.parametrize("op", ["SaveV2", "RestoreV2"])
def test_functions_that_save_or_restore_are_the_savers_alone(of_version_2, op):
    graph = of_version_2.meta_graphs[0]
    name = function_with(graph, op).signature.name
    graph.object_graph_def.concrete_functions[name].bound_inputs.append(1)
    assert op in {what for what, _ in found(of_version_2)}


@pytest.mark.parametrize("how", ["func", "list", "name", "text"])
def test_a_call_of_the_function_that_saves_counts_however_it_is_written(of_version_2, how):
    graph = of_version_2.meta_graphs[0]
    name = function_with(graph, "SaveV2").signature.name
    serving = graph.signature_def["serving_default"].outputs["logits"].name.partition(":")[0]
    served = node(graph, serving).attr["f"].func.name
    outer = next(one for one in graph.graph_def.library.function if one.signature.name == served)
    call = outer.node_def.add(name="call", op=name if how == "name" else "PartitionedCall")
    if how == "func":
        call.attr["f"].func.name = name
    elif how == "list":
        call.attr["branches"].list.func.add(name=name)
    elif how == "text":
        call.attr["other"].s = name.encode()
    assert any(
        what == "PartitionedCall" or what == name or what == "SaveV2" for what, _ in found(of_version_2)
    )
    assert any(
        "node 'call'" in place or "SaveV2" in what or serving in place for what, place in found(of_version_2)
    )


def test_a_function_that_restores_a_file_of_its_own_choice(of_version_2):
    graph = of_version_2.meta_graphs[0]
    inner = function_with(graph, "RestoreV2")
    constant = inner.node_def.add(name="elsewhere", op="Const")
    constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto("/etc/passwd"))
    next(one for one in inner.node_def if one.op == "RestoreV2").input[0] = "elsewhere:output:0"
    assert len(found(of_version_2)) == 1


def test_a_function_that_takes_the_place_of_another(of_version_2):
    graph = of_version_2.meta_graphs[0]
    function_with(graph, "SaveV2").attr["api_implements"].s = b"something"
    assert {what for what, _ in found(of_version_2)} == {"SaveV2"}


# --- assets


@pytest.mark.parametrize("name", ["/etc/passwd", "../variables/x", "a/../../x", "..\\x", ""])
def test_assets_lie_in_the_module(name):
    module = genuine()
    module.meta_graphs[0].asset_file_def.add(filename=name)
    assert len(found(module)) == 1


def test_assets_of_the_legacy_collection_lie_in_the_module_too():
    from tensorflow.core.protobuf.meta_graph_pb2 import AssetFileDef

    module = genuine()
    legacy = module.meta_graphs[0].collection_def["saved_model_assets"].any_list.value.add()
    legacy.value = AssetFileDef(filename="/etc/shadow").SerializeToString()
    assert {what for what, _ in found(module)} == {"/etc/shadow"}


@pytest.mark.parametrize("op", ["InitializeTableFromTextFile", "InitializeTableFromTextFileV2"])
def test_a_table_is_read_from_an_asset_alone(op):
    module = genuine()
    graph = module.meta_graphs[0]
    add_node(graph, "HashTableV2", name="table")
    table = add_node(graph, op, name="hostile", text="/etc/passwd")
    table.input[:] = ["table", "hostile/text"]
    run_by_main_op(graph, "hostile")
    assert found(module) == {(op, "graph {}, node 'hostile'")}
    graph.asset_file_def.add(filename="labels.txt").tensor_info.name = "hostile/text:0"
    assert found(module) == set()
    # A signature would run it with the file name in the graph.
    run_by_signature(graph, "hostile")
    assert found(module) == {(op, "graph {}, node 'hostile'")}


def save_table(path, make_file):
    """Saves a TF2 SavedModel with a lookup table from a file."""

    class Module(tf.Module):
        def __init__(self):
            super().__init__()
            index = tf.lookup.TextFileIndex
            initializer = tf.lookup.TextFileInitializer(
                make_file(self), tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER
            )
            self.table = tf.lookup.StaticHashTable(initializer, -1)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def find(self, names):
            return self.table.lookup(names)

    tf.saved_model.save(Module(), str(path))
    return tf.io.read_file(str(path / "saved_model.pb")).numpy()


def test_a_saved_table_of_an_asset_is_allowed(tmp_path):
    (tmp_path / "labels.txt").write_text("a\nb\n")

    def asset(module):
        module.asset = tf.saved_model.Asset(str(tmp_path / "labels.txt"))
        return module.asset

    module = SavedModel.FromString(save_table(tmp_path / "m", asset))
    assert function_with(module.meta_graphs[0], "InitializeTableFromTextFileV2")
    assert found(module) == set()
    inner = function_with(module.meta_graphs[0], "InitializeTableFromTextFileV2")
    constant = inner.node_def.add(name="elsewhere", op="Const")
    constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto("/etc/passwd"))
    initialized = next(one for one in inner.node_def if one.op == "InitializeTableFromTextFileV2")
    initialized.input[1] = "elsewhere:output:0"
    assert {what for what, _ in found(module)} == {"InitializeTableFromTextFileV2"}


def test_the_name_of_an_asset_that_a_variable_holds_is_not_exchanged(tmp_path):
    (tmp_path / "labels.txt").write_text("a\nb\n")

    def asset(module):
        module.asset = tf.saved_model.Asset(str(tmp_path / "labels.txt"))
        return module.asset

    data = save_table(tmp_path / "m", asset)
    for change in ("assign", "second", "function"):
        graph = (module := SavedModel.FromString(data)).meta_graphs[0]
        variable = next(one for one in graph.graph_def.node if one.op == "VarHandleOp")
        if change == "assign":
            add_node(graph, "AssignVariableOp", variable.name, "hostile/text", text="/etc/passwd").input[:] = [
                variable.name, "hostile/text",
            ]  # fmt: skip
        elif change == "second":
            added = add_node(graph, "VarHandleOp")
            added.attr["shared_name"].s = variable.attr["shared_name"].s
        else:
            add_node(graph, "PartitionedCall", variable.name)
        assert {what for what, _ in found(module)} == {"InitializeTableFromTextFileV2"}, change
