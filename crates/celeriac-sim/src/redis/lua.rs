//! Runs scripts in the Lua version that Redis embeds.

use std::collections::BTreeMap;

use mlua::{Function, Lua, MultiValue, Value, Variadic};

use super::{
    call::Store,
    data::Bytes,
    reply::Reply,
    strings::{number, text},
};

/// The interpreter and the scripts that it knows, by their hashes.
#[derive(Debug)]
pub(super) struct Scripts {
    lua: Lua,
    known: BTreeMap<String, Function>,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let lua = Lua::new();
        let set_up = || -> mlua::Result<()> {
            let cjson = lua.create_table()?;
            cjson.set(
                "encode",
                lua.create_function(|lua, text: mlua::LuaString| {
                    lua.create_string(json_string(&text.as_bytes()))
                })?,
            )?;
            lua.globals().set("cjson", cjson)?;
            lua.globals().set("redis", lua.create_table()?)
        };
        set_up().expect("the interpreter has enough memory");
        Self {
            lua,
            known: BTreeMap::new(),
        }
    }

    pub(super) fn load(&mut self, hash: &str, code: &str) -> Result<(), Reply> {
        let function = self.lua.load(code).set_name("@user_script").into_function();
        let function = function.map_err(|error| failed(&error))?;
        self.known.insert(hash.to_owned(), function);
        Ok(())
    }

    pub(super) fn knows(&self, hash: &str) -> bool {
        self.known.contains_key(hash)
    }

    pub(super) fn run(&self, hash: &str, store: &mut Store, keys: &[Bytes], args: &[Bytes]) -> Reply {
        let Some(script) = self.known.get(hash) else {
            return Reply::error("NOSCRIPT No matching script. Please use EVAL.");
        };
        let mut run = || -> mlua::Result<Reply> {
            let globals = self.lua.globals();
            globals.set("KEYS", self.table(keys)?)?;
            globals.set("ARGV", self.table(args)?)?;
            let returned = self.lua.scope(|scope| {
                let call = scope.create_function_mut(|lua, arguments: Variadic<Value>| {
                    let arguments = arguments.iter().map(argument).collect::<mlua::Result<Vec<_>>>()?;
                    into_lua(lua, store.call(&arguments))
                })?;
                globals.get::<mlua::Table>("redis")?.set("call", call)?;
                script.call::<MultiValue>(())
            })?;
            Ok(from_lua(returned.front().unwrap_or(&Value::Nil)))
        };
        run().unwrap_or_else(|error| failed(&error))
    }

    fn table(&self, items: &[Bytes]) -> mlua::Result<mlua::Table> {
        let strings = items.iter().map(|item| self.lua.create_string(item));
        let strings: mlua::Result<Vec<_>> = strings.collect();
        self.lua.create_sequence_from(strings?)
    }
}

fn failed(error: &mlua::Error) -> Reply {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    // An error of a command keeps its code.
    let code = line.find("redis: ").map(|at| &line[at + 7..]);
    Reply::Error(code.map_or_else(|| format!("ERR {line}"), str::to_owned))
}

fn argument(value: &Value) -> mlua::Result<Bytes> {
    match value {
        Value::String(text) => Ok(text.as_bytes().to_vec()),
        Value::Integer(integer) => Ok(integer.to_string().into_bytes()),
        Value::Number(float) => Ok(number(*float).into_bytes()),
        _ => Err(mlua::Error::runtime(
            "redis: ERR Lua redis lib command arguments must be strings or integers",
        )),
    }
}

fn into_lua(lua: &Lua, reply: Reply) -> mlua::Result<Value> {
    Ok(match reply {
        Reply::Int(integer) => Value::Number(integer as f64),
        Reply::Bulk(bytes) => Value::String(lua.create_string(bytes)?),
        Reply::Nil | Reply::NilArray => Value::Boolean(false),
        Reply::Status(text) => {
            let table = lua.create_table()?;
            table.set("ok", text)?;
            Value::Table(table)
        }
        Reply::Error(text) => return Err(mlua::Error::runtime(format!("redis: {text}"))),
        Reply::Array(items) => {
            let items = items.into_iter().map(|item| into_lua(lua, item));
            let items: mlua::Result<Vec<_>> = items.collect();
            Value::Table(lua.create_sequence_from(items?)?)
        }
    })
}

fn from_lua(value: &Value) -> Reply {
    match value {
        Value::Boolean(true) => Reply::Int(1),
        Value::Integer(integer) => Reply::Int(*integer),
        Value::Number(float) => Reply::Int(*float as i64),
        Value::String(text) => Reply::bulk(text.as_bytes().to_vec()),
        Value::Table(table) => {
            if let Ok(Some(status)) = table.get::<Option<mlua::LuaString>>("ok") {
                return Reply::Status(text(&status.as_bytes()));
            }
            let items = table.sequence_values::<Value>().map_while(Result::ok);
            Reply::Array(
                items
                    .take_while(|item| !item.is_nil())
                    .map(|item| from_lua(&item))
                    .collect(),
            )
        }
        _ => Reply::Nil,
    }
}

/// Encodes a string as Redis' JSON library does.
fn json_string(bytes: &[u8]) -> Bytes {
    let mut out = vec![b'"'];
    for byte in bytes {
        match byte {
            b'"' | b'\\' | b'/' => out.extend([b'\\', *byte]),
            8 => out.extend(b"\\b"),
            9 => out.extend(b"\\t"),
            10 => out.extend(b"\\n"),
            12 => out.extend(b"\\f"),
            13 => out.extend(b"\\r"),
            0..32 | 127 => out.extend(format!("\\u{byte:04x}").bytes()),
            _ => out.push(*byte),
        }
    }
    out.push(b'"');
    out
}
