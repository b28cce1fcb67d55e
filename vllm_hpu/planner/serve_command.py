"""The command that starts a server with a plan."""

import shlex

from vllm_hpu.planner.comparison import Question


def serve_command(question: Question) -> str:
    """``vllm serve`` with the limits given and the choices that make this plan.

    Variables of single sizes (``VLLM_*_BUCKET_*``) stay those of the environment.
    """
    server, settings = question.server, question.settings
    words = ["vllm", "serve", str(question.model.path)]
    for flag, origin in server.origins.items():
        if origin == "given" and flag != "num-blocks":  # a question, no flag of the server
            words += [f"--{flag}", str(getattr(server.limits, flag.replace("-", "_")))]
    if question.ranks > 1:
        words += ["--tensor-parallel-size", str(question.ranks)]
    chosen = {
        "bucketing-strategy": "" if question.strategy == "file" else question.strategy,
        "traffic-profile": settings.traffic_profile if question.strategy == "opt" else "",
        "plan-budget": settings.plan_budget if question.strategy == "opt" else "",
        "plan-cost": "" if settings.plan_cost == "time" else settings.plan_cost,
    }
    for name, value in chosen.items():
        if value:
            words += [f"--hpu-{name}", value]
    command = shlex.join(words)
    if server.limits.query_len > 1:
        command += " --speculative-config ..."
    if question.strategy == "file":
        file = shlex.quote(settings.bucketing_file)
        return f"VLLM_BUCKETING_FROM_FILE={file} {command}"
    return command
