"""Runs Python snippets for the tests: reads `{"code": ...}` from each line and writes `{"value": ...}` or `{"error": ...}`.

All snippets share their variables. The value of a snippet is the value of its last statement if that is an expression.
"""

import ast
import gc
import json
import sys
import traceback

import app

# A garbage-collected result unsubscribes. With Celery 5.6 on redis-py 5.3, this deadlocks a client that is subscribing
# at the time, so collections happen only between snippets.
gc.disable()

variables = {**vars(app), "json": json}
output, sys.stdout = sys.stdout, sys.stderr
for line in sys.stdin:
    try:
        tree = ast.parse(json.loads(line)["code"])
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "<snippet>", "exec"), variables)
        value = last and eval(compile(ast.Expression(last.value), "<snippet>", "eval"), variables)
        response = json.dumps({"value": value})
    except Exception:
        response = json.dumps({"error": traceback.format_exc()})
    gc.collect()
    print(response, file=output, flush=True)
