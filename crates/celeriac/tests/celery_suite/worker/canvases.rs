//! Tasks that send, return, extend or are replaced by canvases.

use celeriac::{Canvas, Signature, TaskContext, TaskError, WorkerBuilder, chain, chord, group};
use serde_json::Value;

use crate::{Returned, name, options, push};

pub(crate) fn register(mut worker: WorkerBuilder) -> WorkerBuilder {
    for (task, canvas) in nested() {
        let canvas = move |_: TaskContext, (): ()| {
            let canvas = canvas.clone();
            async move { Ok::<_, TaskError>(canvas) }
        };
        worker = worker.task(
            name(&format!("return_nested_signature_{task}")),
            options(),
            canvas,
        );
    }
    worker
        .task(name("chain_add"), options().parameters(&["x", "y"]), chain_add)
        .task(name("chord_add"), options().parameters(&["x", "y"]), chord_add)
        .task(
            name("add_replaced"),
            options().parameters(&["x", "y"]),
            add_replaced,
        )
        .task(
            name("replace_with_chain"),
            options().extra_kwargs(true),
            replace_with_chain,
        )
        .task(
            name("replace_with_chain_which_raises"),
            options().extra_kwargs(true),
            replace_with_chain_which_raises,
        )
        .task(
            name("replace_with_empty_chain"),
            options(),
            replace_with_empty_chain,
        )
        .task(
            name("add_to_all"),
            options().parameters(&["nums", "val"]),
            add_to_all,
        )
        .task(
            name("add_to_all_to_chord"),
            options().parameters(&["nums", "val"]),
            add_to_all_to_chord,
        )
        .task(
            name("add_chord_to_chord"),
            options().parameters(&["nums", "val"]),
            add_chord_to_chord,
        )
        .task(
            name("second_order_replace1"),
            options().parameters(&["state"]),
            second_order_replace1,
        )
        .task(
            name("second_order_replace2"),
            options().parameters(&["state"]),
            second_order_replace2,
        )
        .task(
            name("build_chain_inside_task"),
            options(),
            build_chain_inside_task,
        )
        .task(name("fail_replaced"), options(), fail_replaced)
        .task(
            name("rebuild_signature"),
            options().parameters(&["sig_dict"]),
            rebuild_signature,
        )
        .task(
            name("replace_with_stamped_task"),
            options().parameters(&["replace_with"]),
            replace_with_stamped_task,
        )
}

/// Canvases of canvases, by the suffix of the task that returns them.
fn nested() -> [(&'static str, Canvas); 9] {
    let add = || signature("add");
    [
        ("chain_chain", chain([chain([add()])])),
        ("chain_group", chain([group([add()])])),
        ("chain_chord", chain([chord([add()], add())])),
        ("group_chain", group([chain([add()])])),
        ("group_group", group([group([add()])])),
        ("group_chord", group([chord([add()], add())])),
        ("chord_chain", chord([chain([add()])], add())),
        ("chord_group", chord([group([add()])], add())),
        ("chord_chord", chord([chord([add()], add())], add())),
    ]
}

fn signature(task: &str) -> Signature {
    Signature::new(name(task))
}

async fn chain_add(context: TaskContext, (x, y): (Value, Value)) -> Returned<()> {
    let canvas = signature("add")
        .arg(x.clone())
        .arg(x)
        .then(signature("add").arg(y));
    context.client().apply(canvas).await?;
    Ok(())
}

async fn chord_add(context: TaskContext, (x, y): (Value, Value)) -> Returned<()> {
    let header = [signature("add").arg(x.clone()).arg(x)];
    context
        .client()
        .apply(chord(header, signature("add").arg(y)))
        .await?;
    Ok(())
}

async fn add_replaced(_: TaskContext, (x, y): (Value, Value)) -> Returned {
    Err(TaskError::replace(signature("add").arg(x).arg(y)))
}

/// Returns `redis_echo`; immutable and with the message in the task's keyword argument `link_msg`, if there is one.
fn echo(context: &TaskContext) -> Signature {
    match context.message().kwargs.get("link_msg") {
        None | Some(Value::Null) => signature("redis_echo"),
        Some(message) => signature("redis_echo").arg(message.clone()).immutable(),
    }
}

async fn replace_with_chain(context: TaskContext, args: Vec<Value>) -> Returned {
    let canvas = signature("identity").args(args).then(signature("identity"));
    Err(TaskError::replace(canvas.on_success(echo(&context))))
}

async fn replace_with_chain_which_raises(context: TaskContext, args: Vec<Value>) -> Returned {
    let canvas = signature("identity").args(args).then(signature("raise_error"));
    Err(TaskError::replace(canvas.on_error(echo(&context))))
}

async fn replace_with_empty_chain(_: TaskContext, _: Vec<Value>) -> Returned {
    Err(TaskError::replace(chain::<Signature>([])))
}

fn added(nums: Vec<Value>, val: &Value) -> impl Iterator<Item = Signature> {
    nums.into_iter()
        .map(|num| signature("add").arg(num).arg(val.clone()))
}

async fn add_to_all(_: TaskContext, (nums, val): (Vec<Value>, Value)) -> Returned {
    Err(TaskError::replace(group(added(nums, &val))))
}

async fn add_to_all_to_chord(context: TaskContext, (nums, val): (Vec<Value>, Value)) -> Returned<u8> {
    for add in added(nums, &val) {
        context.add_to_chord(add).await?;
    }
    Ok(0)
}

async fn add_chord_to_chord(context: TaskContext, (nums, val): (Vec<Value>, Value)) -> Returned<u8> {
    let canvas = group(added(nums, &val)).then(signature("tsum"));
    context.add_to_chord(canvas).await?;
    Ok(0)
}

async fn second_order_replace1(_: TaskContext, (state,): (Option<bool>,)) -> Returned<()> {
    if state == Some(true) {
        return push("redis-echo", &"Out A".into()).await;
    }
    push("redis-echo", &"In A".into()).await?;
    let again = signature("second_order_replace1")
        .kwarg("state", true)
        .immutable();
    Err(TaskError::replace(signature("second_order_replace2").then(again)))
}

async fn second_order_replace2(_: TaskContext, (state,): (Option<bool>,)) -> Returned<()> {
    if state == Some(true) {
        return push("redis-echo", &"Out B".into()).await;
    }
    push("redis-echo", &"In B".into()).await?;
    let again = signature("second_order_replace2")
        .kwarg("state", true)
        .immutable();
    Err(TaskError::replace(
        signature("redis_echo").arg("In/Out C").then(again),
    ))
}

async fn build_chain_inside_task(context: TaskContext, (): ()) -> Returned {
    let add = |n: u8| signature("add").arg(n);
    let canvas = add(1)
        .arg(1)
        .then(add(2))
        .then(group([add(3), add(4)]))
        .then(add(5));
    Ok(context.client().apply(canvas).await?.as_tuple())
}

async fn fail_replaced(_: TaskContext, args: Vec<Value>) -> Returned {
    Err(TaskError::replace(signature("fail").args(args).immutable()))
}

async fn rebuild_signature(_: TaskContext, (_sig_dict,): (Canvas,)) -> Returned<()> {
    Ok(())
}

async fn replace_with_stamped_task(_: TaskContext, (replace_with,): (Option<Canvas>,)) -> Returned {
    let canvas = replace_with.unwrap_or_else(|| signature("replaced_with_me").into());
    Err(TaskError::replace(
        canvas.stamp("StampOnReplace", "This is the replaced task"),
    ))
}
