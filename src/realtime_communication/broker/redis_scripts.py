"""The scripts in Redis, each of which does in one piece what must not come apart.

All keys of a call have one hash tag (see `redis_keys.py`). Every script begins with ``#!lua``: Redis (>= 7) then
refuses it as a whole, before its first command, where it would refuse a write in the middle for want of memory.

The position of a topic is the last id of its stream, `<epoch>-<offset>`, which outlives the messages: there is no
second key that could get out of step with it. A stream that is gone starts again under the epoch that the caller made
up.
"""

from __future__ import annotations

from typing import Final

from realtime_communication.broker.redis_link import Script

_POSITION: Final = """#!lua
local call = redis.call

local function text(number) return string.format('%.0f', number) end

-- The epoch as text and the offset of the last message; nil without a stream.
local function position(stream)
    local info = redis.pcall('XINFO', 'STREAM', stream)
    if info.err then return nil end
    for i = 1, #info, 2 do
        if info[i] == 'last-generated-id' then
            local epoch, offset = string.match(info[i + 1], '^(%d+)-(%d+)$')
            return epoch, tonumber(offset)
        end
    end
end

-- Redis's wall clock in ms, by which all nodes go, whatever their own clocks say.
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

PUBLISH: Final = Script(
    _POSITION
    + """
-- KEYS: stream, batch, the routes of the user if `inbox`, then one for each '1' of the mask
-- ARGV: publish command, channel, fresh epoch, most messages, ms of stream, batch and idempotency keys, inbox, mask,
--       then the bodies
-- "<epoch> <offset of the first> <reached>", and with a mask " <epoch>-<offset>" for each body
local done = call('GET', KEYS[2])
if done then return done end
local stream, mask, body = KEYS[1], ARGV[9], 10
local epoch, offset = position(stream)
if not epoch then epoch, offset = ARGV[3], 0 end
local first, last_size, bodies, positions = offset + 1, 0, '', ''

if mask == '' then
    for i = body, #ARGV do
        offset = offset + 1
        call('XADD', stream, epoch .. '-' .. text(offset), 'b', ARGV[i], 't', text(now))
    end
    bodies, last_size = table.concat(ARGV, '', body), #ARGV[#ARGV]
else
    local key, new, places = 2 + tonumber(ARGV[8]), {}, {}
    for i = body, #ARGV do
        local place
        local keyed = string.sub(mask, i - body + 1, i - body + 1) == '1'
        if keyed then
            key = key + 1
            place = call('GET', KEYS[key])
        end
        if not place then
            offset = offset + 1
            place = epoch .. '-' .. text(offset)
            call('XADD', stream, place, 'b', ARGV[i], 't', text(now))
            if keyed then call('SET', KEYS[key], place, 'PX', ARGV[7]) end
            new[#new + 1], last_size = ARGV[i], #ARGV[i]
        end
        places[#places + 1] = place
    end
    bodies, positions = table.concat(new), ' ' .. table.concat(places, ' ')
end

if offset >= first then
    call('XTRIM', stream, 'MAXLEN', ARGV[4])
    call('PEXPIRE', stream, ARGV[5])
    call(ARGV[1], ARGV[2], struct.pack('<BBHI4I8I8I4I4', 1, 1, 0, offset - first + 1, tonumber(epoch), first, last_size,
                                       #bodies) .. bodies)
end
local reached = 0
if ARGV[8] == '1' then reached = call('ZCOUNT', KEYS[3], '(' .. text(now), '+inf') end
local answer = epoch .. ' ' .. text(first) .. ' ' .. reached .. positions
call('SET', KEYS[2], answer, 'PX', ARGV[6])
return answer
"""
)

_OPEN: Final = (
    _POSITION
    + """
-- KEYS: stream
-- ARGV: publish command, channel, fresh epoch, ms of the stream, ms after which a message is forgotten, an epoch that
--       has to end, the last position known, ...
-- The topic's position, its oldest offset; a stream is made where there is none, and made anew where it has lost what
-- it had.
local stream = KEYS[1]
local epoch, offset = position(stream)
local lost = epoch and (epoch == ARGV[6] or (epoch == ARGV[7] and offset < tonumber(ARGV[8])))
if lost then call('DEL', stream) end
if lost or not epoch then
    epoch, offset = ARGV[3], 0
    call('XADD', stream, 'MAXLEN', 0, epoch .. '-0', 'b', '')
end
if lost then call(ARGV[1], ARGV[2], struct.pack('<BBH', 1, 3, 0)) end
call('PEXPIRE', stream, ARGV[4])

local function entries(first, last, count)
    return call('XRANGE', stream, epoch .. '-' .. text(first), epoch .. '-' .. text(last), 'COUNT', count)
end
local function is_old(at, ms)
    local entry = entries(at, at, 1)[1]
    local stored = entry and tonumber(entry[2][4])
    return stored and stored < now - ms
end
-- The first offset that is at least `low` and not older than `ms`.
local function first_within(low, ms)
    if low > offset or not is_old(low, ms) then return low end
    local high = offset + 1
    while high - low > 1 do
        local middle = math.floor((low + high) / 2)
        if is_old(middle, ms) then low = middle else high = middle end
    end
    return high
end

local oldest = offset + 1
local head = call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
if head then
    local first = tonumber(string.match(head[1], '-(%d+)$'))
    oldest = first_within(first, ARGV[5])
    if oldest > first then call('XTRIM', stream, 'MINID', epoch .. '-' .. text(oldest)) end
end

local function answer(first, last, count)
    local reply = {epoch, text(offset), text(first)}
    if first <= last then
        for i, entry in ipairs(entries(first, last, count)) do reply[3 + i] = entry[2][2] end
    end
    return reply
end
"""
)

READ: Final = Script(
    _OPEN
    + """
-- ARGV: ..., how many of the newest messages, most messages, then positions: epoch, offset
-- What follows the earliest of them that nothing is missing after: epoch, offset, offset of the first, bodies
local after = math.max(oldest - 1, offset - tonumber(ARGV[9]))
for i = 11, #ARGV, 2 do
    local wanted = tonumber(ARGV[i + 1])
    if ARGV[i] == epoch and wanted >= oldest - 1 and wanted < after then after = wanted end
end
return answer(after + 1, offset, ARGV[10])
"""
)

OPEN: Final = Script(
    _POSITION
    + """
-- KEYS: streams
-- ARGV: fresh epoch, ms of the streams
-- The epoch and the offset of each; a stream is made where there is none. Empty for a key that is no stream.
local found = {}
for i, stream in ipairs(KEYS) do
    local epoch, offset = position(stream)
    if not epoch then
        epoch, offset = ARGV[1], 0
        if redis.pcall('XADD', stream, 'MAXLEN', 0, epoch .. '-0', 'b', '').err then epoch = nil end
    end
    if epoch then call('PEXPIRE', stream, ARGV[2]) end
    found[2 * i - 1], found[2 * i] = epoch or '', text(offset)
end
return found
"""
)
"""Of many topics at once; in a cluster of one."""

HISTORY: Final = Script(
    _OPEN
    + """
-- ARGV: ..., most messages, '1' for the messages before the position, the position: epoch, offset, then how many of
--       the newest messages are shown, and for how many ms; 0 for all that are there
-- A page of messages, the earliest first: epoch, offset, offset of the first, bodies
local first, last, most = oldest, offset, tonumber(ARGV[9])
local shown, shown_ms = tonumber(ARGV[13]), tonumber(ARGV[14])
if shown > 0 then first = math.max(first, offset + 1 - shown) end
if shown_ms > 0 then first = first_within(first, shown_ms) end
local wanted = tonumber(ARGV[12])
if ARGV[11] == epoch then
    if ARGV[10] == '1' then
        if wanted <= last then last = math.max(0, wanted - 1) end
    elseif wanted >= first then
        first = wanted + 1
    end
end
if first > last then first = last + 1 end
if last + 1 - first > most then
    if ARGV[10] == '1' then first = last + 1 - most else last = first + most - 1 end
end
return answer(first, last, most)
"""
)

_PRESENCE: Final = """#!lua
local call = redis.call

local function now()
    local time = call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function text(number) return string.format('%.0f', number) end
"""

PRESENCE: Final = Script(
    _PRESENCE
    + """
-- KEYS: members, nodes
-- ARGV: publish command, channel, run of the node, ms it vouches for, its earlier run, then for each change: '+' or
--       '-', session, user, member (run, user, time, info, each with its size in front)
-- How many sessions of this node are there now. Those of nodes that are gone are taken out.
local members, nodes, run = KEYS[1], KEYS[2], ARGV[3]

local function tell(leave, user, session, info, node)
    local parts = struct.pack('<I4c0I4c0I4c0I4c0I4c0', 1, leave, #user, user, #session, session, #info, info,
                              #node, node)
    call(ARGV[1], ARGV[2], struct.pack('<BBHI4', 1, 2, 0, #parts) .. parts)
end
local function less(field)
    local left = call('HINCRBY', members, field, -1)
    if left <= 0 then call('HDEL', members, field) end
    return left <= 0
end
local function enter(session, user, member)
    local node, _, _, info = struct.unpack('<I4c0I4c0I4c0I4c0', member)
    local before = call('HGET', members, 's' .. session)
    if before then
        local old = struct.unpack('<I4c0', before)
        if old ~= node then
            less('c' .. old)
            call('HINCRBY', members, 'c' .. node, 1)
            call('HSET', members, 's' .. session, member)
        end
        return
    end
    call('HSET', members, 's' .. session, member)
    call('HINCRBY', members, 'c' .. node, 1)
    if call('HINCRBY', members, 'u' .. user, 1) == 1 then tell('0', user, session, info, node) end
end
local function leave(session)
    local member = call('HGET', members, 's' .. session)
    if not member then return end
    local node, user, _, info = struct.unpack('<I4c0I4c0I4c0I4c0', member)
    call('HDEL', members, 's' .. session)
    less('c' .. node)
    if less('u' .. user) then tell('1', user, session, info, node) end
end

for i = 6, #ARGV, 4 do
    if ARGV[i] == '+' then enter(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]) else leave(ARGV[i + 1]) end
end
local time = now()
local count = tonumber(call('HGET', members, 'c' .. run) or 0)
if count > 0 then call('ZADD', nodes, text(time + ARGV[4]), run) else call('ZREM', nodes, run) end
call('ZADD', nodes, 'XX', 0, ARGV[5])
local gone = call('ZRANGEBYSCORE', nodes, '-inf', text(time))
if gone[1] then
    local is_gone = {}
    for _, node in ipairs(gone) do is_gone[node] = true end
    local all = call('HGETALL', members)
    for i = 1, #all, 2 do
        if string.sub(all[i], 1, 1) == 's' and is_gone[struct.unpack('<I4c0', all[i + 1])] then
            leave(string.sub(all[i], 2))
        end
    end
    call('ZREMRANGEBYSCORE', nodes, '-inf', text(time))
end
call('PEXPIRE', members, ARGV[4])
call('PEXPIRE', nodes, ARGV[4])
return count
"""
)

MEMBERS: Final = Script(
    _PRESENCE
    + """
-- KEYS: members, nodes
-- Session and member of everybody whom a node vouches for.
local alive, found = {}, {}
for _, node in ipairs(call('ZRANGEBYSCORE', KEYS[2], '(' .. text(now()), '+inf')) do alive[node] = true end
local all = call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
    if string.sub(all[i], 1, 1) == 's' and alive[struct.unpack('<I4c0', all[i + 1])] then
        found[#found + 1] = string.sub(all[i], 2)
        found[#found + 1] = all[i + 1]
    end
end
return found
"""
)

KEEP: Final = Script("#!lua\nreturn redis.call('PEXPIRE', KEYS[1], ARGV[1])")
"""Keep a stream for so many milliseconds more; 0 when there is none."""

CLAIM: Final = Script(
    """#!lua
-- KEYS: the node's id. ARGV: run of the node, ms
-- The run that had said so last.
return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2], 'GET')
"""
)

ROUTES: Final = Script(
    _PRESENCE
    + """
-- KEYS: the routes of users
-- ARGV: run of the node, ms it vouches for, '+' or '-' for each of the users
local time = now()
for i, routes in ipairs(KEYS) do
    if string.sub(ARGV[3], i, i) == '+' then
        call('ZADD', routes, text(time + ARGV[2]), ARGV[1])
        call('ZREMRANGEBYSCORE', routes, '-inf', text(time))
        call('PEXPIRE', routes, ARGV[2])
    else
        call('ZREM', routes, ARGV[1])
    end
end
return #KEYS
"""
)
