"""The JobSets agree with the OpenAPI schemas of JobSet and Kubernetes.

The schemas come as the models that kubeflow-trainer-api generates from them.
"""

import copy
import typing
from pathlib import Path

import pytest
import yaml

models = pytest.importorskip(
    "kubeflow_trainer_api.models", reason="pip install -e '.[test]' brings the schemas"
)
pydantic = pytest.importorskip("pydantic")

GOLDEN = Path(__file__).parent / "golden"
FILES = ("gke-tpu.yaml", "gke-slices.yaml", "gke-gpu.yaml")
# Enumerations: strings in the models. JobSet: api/jobset/v1alpha2/jobset_types.go;
# Kubernetes: the Job, PodSpec and ContainerPort API reference.
ENUMS = {
    "restartStrategy": {"Recreate", "BlockingRecreate", "InPlaceRestart"},
    "completionMode": {"Indexed", "NonIndexed"},
    "restartPolicy": {"Never"},  # what podFailurePolicy demands
    "operator": {"In", "NotIn"},
    "medium": {"", "Memory"},
}
ACTIONS = {
    "failurePolicy": {
        "FailJobSet",
        "RestartJobSet",
        "RestartJobSetAndIgnoreMaxRestarts",
    },
    "podFailurePolicy": {"FailJob", "Ignore", "Count", "FailIndex"},
}


def load(name):
    return yaml.safe_load((GOLDEN / name).read_text())


def trials():
    """Return the JobSets of a sweep, one for each trial."""
    return list(yaml.safe_load_all((GOLDEN / "sweep-gke.yaml").read_text()))


def model_in(annotation):
    """Return the model inside Optional or List; None for a free-form map."""
    if typing.get_origin(annotation) is dict:
        return None
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return annotation
    models = (model_in(a) for a in typing.get_args(annotation))
    return next(filter(None, models), None)


def check(model, value, path="JobSet"):
    """Raise AssertionError for a key that the schema does not know, at any depth."""
    if isinstance(value, list):
        for i, element in enumerate(value):
            check(model, element, f"{path}[{i}]")
    elif isinstance(value, dict):
        known = {f.alias or name: f for name, f in model.model_fields.items()}
        for key, inner in value.items():
            assert key in known, f"{path} has no field {key}"
            if key in ENUMS:
                assert inner in ENUMS[key], f"{path}.{key} is {inner}"
            if inner_model := model_in(known[key].annotation):
                check(inner_model, inner, f"{path}.{key}")


def validate(jobset):
    check(models.JobsetV1alpha2JobSet, jobset)
    models.JobsetV1alpha2JobSet.from_dict(jobset)  # types, and what is required
    spec = jobset["spec"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    for name, holder in (("failurePolicy", spec), ("podFailurePolicy", job)):
        for rule in holder[name]["rules"]:
            assert rule["action"] in ACTIONS[name]


@pytest.mark.parametrize("name", FILES)
def test_the_jobset_is_valid(name):
    jobset = load(name)
    assert (jobset["apiVersion"], jobset["kind"]) == (
        "jobset.x-k8s.io/v1alpha2",
        "JobSet",
    )
    validate(jobset)


def test_the_jobsets_of_a_sweep_are_valid_and_have_different_names():
    for jobset in trials():
        validate(jobset)
    names = [jobset["metadata"]["name"] for jobset in trials()]
    assert names == ["loss-factor-factor1-3", "loss-factor-factor2-1"]


def mapping_paths(value, path=()):
    """Yield the path to every mapping."""
    if isinstance(value, dict):
        yield path
    pairs = value.items() if isinstance(value, dict) else ()
    for key, inner in enumerate(value) if isinstance(value, list) else pairs:
        yield from mapping_paths(inner, (*path, key))


FREE = {"labels", "annotations", "nodeSelector", "limits"}
FIXED = [p for p in mapping_paths(load(FILES[1])) if not FREE & set(p)]


@pytest.mark.parametrize("path", FIXED, ids=str)
def test_an_unknown_key_is_refused_at_every_depth(path):
    jobset = copy.deepcopy(load(FILES[1]))
    inner = jobset
    for key in path:
        inner = inner[key]
    inner["color"] = 1
    with pytest.raises(AssertionError, match="color"):
        validate(jobset)


@pytest.mark.parametrize("name", FILES)
def test_exit_codes_lead_to_the_action_of_the_table(name):
    """JobSet applies the first rule that fits a failed Job's reason and message."""
    spec = load(name)["spec"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    disruption, again, stop = job["podFailurePolicy"]["rules"]
    assert disruption["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert {74, 75, 124, 134, 137, 139, 143} <= set(again["onExitCodes"]["values"])
    assert {64, 65, 66, 69, 70, 73, 76} <= set(stop["onExitCodes"]["values"])
    patterns = {
        "evicted": ["matching FailJob rule at index 0$"],
        "runAgain": ["matching FailJob rule at index 1$"],
        "stop": None,
    }
    rules = {rule["name"]: rule for rule in spec["failurePolicy"]["rules"]}
    assert list(rules) == list(patterns)
    for name_of_rule, rule in rules.items():
        assert rule.get("onJobFailureMessagePatterns") == patterns[name_of_rule]
        assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
