"""Runs Python snippets for the tests: a JSON text `{"code": ...}` a line in, `{"value": ...}` or `{"error": ...}` out.

All snippets share their variables; the value of one that ends with an expression is that expression's.
"""

import ast
import gc
import json
import sys
import traceback

import app

# A result that is collected unsubscribes. With Celery 5.6 on redis-py 5.3, a client that is just subscribing then waits
# for itself for ever, so collections happen between snippets only.
gc.disable()

variables = {**vars(app), "json": json}
answers, sys.stdout = sys.stdout, sys.stderr
for line in sys.stdin:
    try:
        tree = ast.parse(json.loads(line)["code"])
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "<snippet>", "exec"), variables)
        value = last and eval(compile(ast.Expression(last.value), "<snippet>", "eval"), variables)
        answer = json.dumps({"value": value})
    except Exception:
        answer = json.dumps({"error": traceback.format_exc()})
    gc.collect()
    print(answer, file=answers, flush=True)
