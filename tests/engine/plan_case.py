"""What servers plan: run as ``python -m tests.engine.plan_case FLAGS MODEL...``, prints JSON.

FLAGS is a JSON object of engine arguments, the same for all models.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any


def main() -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext

    from vllm_hpu.engine_plan import plan_for

    flags: dict[str, Any] = json.loads(sys.argv[1])
    found = {}
    for model in sys.argv[2:]:
        arguments = AsyncEngineArgs(model=model, **flags)
        plan = plan_for(arguments.create_engine_config(UsageContext.OPENAI_API_SERVER))
        keys = [asdict(key) | {"kind": key.kind} for key in plan.keys]
        found[model] = {"limits": asdict(plan.limits), "graphs": keys}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
