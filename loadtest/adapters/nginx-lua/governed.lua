-- What an operator writes in Lua to make nginx do a gateway's work on OpenAI's chat surface: check the key by its hash, refuse what
-- is no JSON, map the model's name, ask for usage, hide the event that the caller did not ask for, count tokens per key.
--
-- Limits: whole bodies and whole usage events in memory; an event that straddles two reads is held until its end.
-- Absent: other dialects, gzip answers.

local cjson = require "cjson.safe"
local usage = ngx.shared.usage

-- SHA-1 of the key that callers send; nginx's Lua has no faster strong hash without another library.
local KEYS = { [ngx.sha1_bin("ng-load")] = "load" }
local MODELS = { mock = "mock-1" }

local M = {}

local function refuse(status, message)
    ngx.status = status
    ngx.header.content_type = "application/json"
    ngx.say(cjson.encode({ error = { message = message, type = "invalid_request_error" } }))
    return ngx.exit(status)
end

function M.admit()
    local key = (ngx.var.http_authorization or ""):match("^Bearer (.+)$")
    local name = key and KEYS[ngx.sha1_bin(key)]
    if not name then
        return refuse(401, "wrong key")
    end
    ngx.req.read_body()
    local body = cjson.decode(ngx.req.get_body_data() or "")
    if type(body) ~= "table" or type(body.model) ~= "string" then
        return refuse(400, "the body is not a JSON object that names a model")
    end
    ngx.var.key_name, ngx.var.model = name, body.model
    body.model = MODELS[body.model] or body.model
    if body.stream and not (body.stream_options and body.stream_options.include_usage) then
        body.stream_options = { include_usage = true }
        ngx.ctx.hides_usage = true
    end
    ngx.req.set_body_data(cjson.encode(body))
    ngx.ctx.name = name
end

function M.head()
    local kind = ngx.header.content_type or ""
    ngx.ctx.streams = kind:sub(1, 17) == "text/event-stream"
    if ngx.ctx.hides_usage then
        ngx.header.content_length = nil
    end
end

local function count(text)
    local from = text:find('"usage":{', 1, true)
    if not from then
        return false
    end
    ngx.ctx.tokens_in = tonumber(text:match('"prompt_tokens":(%d+)', from)) or ngx.ctx.tokens_in
    ngx.ctx.tokens_out = tonumber(text:match('"completion_tokens":(%d+)', from)) or ngx.ctx.tokens_out
    return true
end

function M.body()
    local ctx, chunk = ngx.ctx, ngx.arg[1]
    if not ctx.name or chunk == "" then
        return
    end
    if not ctx.streams then
        ctx.whole = (ctx.whole or "") .. chunk
        if ngx.arg[2] then
            count(ctx.whole)
        end
        return
    end
    -- Most reads are whole events without usage: they pass as they are.
    if not ctx.carry and chunk:sub(-2) == "\n\n" and not chunk:find('"usage":{', 1, true) then
        return
    end
    chunk = (ctx.carry or "") .. chunk
    ctx.carry = nil
    local out, at = {}, 1
    while true do
        local _, last = chunk:find("\n\n", at, true)
        if not last then
            break
        end
        local event = chunk:sub(at, last)
        if not (count(event) and ctx.hides_usage and event:find('"choices":[]', 1, true)) then
            out[#out + 1] = event
        end
        at = last + 1
    end
    if at <= #chunk then
        if ngx.arg[2] then
            out[#out + 1] = chunk:sub(at)
        else
            ctx.carry = chunk:sub(at)
        end
    end
    ngx.arg[1] = table.concat(out)
end

function M.settle()
    local ctx = ngx.ctx
    if not ctx.name then
        return
    end
    usage:incr(ctx.name .. " requests", 1, 0)
    if ctx.tokens_out then
        ngx.var.tokens_in, ngx.var.tokens_out = ctx.tokens_in, ctx.tokens_out
        usage:incr(ctx.name .. " input", ctx.tokens_in or 0, 0)
        usage:incr(ctx.name .. " output", ctx.tokens_out, 0)
    end
end

function M.metrics()
    for _, name in ipairs(usage:get_keys(0)) do
        local key, what = name:match("^(%S+) (%S+)$")
        ngx.say(what, '_total{key="', key, '"} ', usage:get(name))
    end
end

return M
