-- What the workers of a process did, in this order: notes of running jobs, and ends. With an end the next
-- job of the same device can be taken, in the same step.
-- ARGV[3] the process, [4] the number of this batch, by which one that is sent again is known.
-- ARGV[5..]: for each item its sort and what belongs to it:
--   'S' about to send, 'L' answered, 'N' only an event: job, epoch, node, number of the note, line number,
--     command, its result (JSON), the event (JSON);
--   'E' an end: job, the claim's epoch, node, nonce, status, result, the event, and for the next job
--     the epoch of the device's lease or '', ticket.
-- Answer: for each item '1' when it counts, '0' when its claim is stale. For an end that counts and asks for
-- the next job: '1' when there is none, or the claim.
local process, batch = ARGV[3], tonumber(ARGV[4])
local answers = {}

local NOTED = { 'status', 'epoch', 'node', 'kind', 'device', 'noted' }
local ENDED = { 'status', 'epoch', 'node', 'kind', 'device', 'nonce', 'created', 'started', 'result_ttl', 'way',
  'cancel', 'notify', 'key' }

-- A query's notes are events, nothing more: that they came is written once for the whole batch.
local came = nil

local function first_time()
  if came == nil then came = tonumber(call('GET', P .. 'lane:' .. process) or 0) end
  return came < batch
end

local function note(sort, id, epoch, node, number, line, command, result, what)
  local key = P .. 'job:' .. id
  local v = call('HMGET', key, unpack(NOTED))
  if v[1] ~= 'started' or v[2] ~= epoch or v[3] ~= node then return '0' end
  if v[4] ~= 'modification' then
    if first_time() then event(int(now), id, v[5], what) end
    return '1'
  end
  if tonumber(v[6] or 0) >= tonumber(number) then return '1' end
  if sort == 'S' then
    call('HSET', key, 'noted', number, 'sending', command, 'sending_number', line)
  elseif sort == 'L' then
    call('HDEL', key, 'sending', 'sending_number')
    call('RPUSH', P .. 'lines:' .. id, result)
    call('HINCRBY', key, 'answered', 1)
    call('HSET', key, 'noted', number, 'last_line', command)
  else
    call('HSET', key, 'noted', number)
  end
  event(int(now), id, v[5], what)
  return '1'
end

-- The job that an end took before, when its answer was lost.
local function taken(device, ticket)
  local id = dev(device).pinned
  if not id then return nil end
  local v = call('HMGET', P .. 'job:' .. id, 'queue', 'device', 'kind', 'about', 'attempt', 'created', 'enqueued',
    'request', 'ticket', 'epoch', 'started', 'worker', 'node')
  if v[9] ~= ticket then return nil end
  return claimed(id, v[13], v, v[10], v[5], v[11], v[12])
end

local function finished(id, epoch, node, nonce, status, result, what, lease, ticket)
  local v = call('HMGET', P .. 'job:' .. id, unpack(ENDED))
  local device, counts = v[5], v[1] == 'started' and v[2] == epoch and v[3] == node
  if counts then
    local job = { device = device, is_change = v[4] == 'modification', node = node, created = v[7], started = v[8],
      result_ttl = v[9], way = v[10], cancel = v[11], notify = v[12], key = v[13] }
    free(id, job)
    finish(id, job, status, result, what, nonce)
  elseif v[6] ~= nonce then
    return '0'
  end
  if lease == '' or not device then return '1' end
  local d = dev(device)
  if d.node ~= node or d.epoch ~= lease then return '1' end
  -- The same end again: its first answer was lost.
  if not counts then return taken(device, ticket) or '1' end
  if call('HGET', P .. 'node:' .. node, 'alive') ~= '1' then return '1' end
  local next_id = next_own(d)
  return next_id and start(next_id, node, 'pinned', ticket) or '1'
end

local at = 5
while at <= #ARGV do
  if ARGV[at] == 'E' then
    answers[#answers + 1] = finished(unpack(ARGV, at + 1, at + 9))
    at = at + 10
  else
    answers[#answers + 1] = note(unpack(ARGV, at, at + 8))
    at = at + 9
  end
end
if came and came < batch then call('SET', P .. 'lane:' .. process, ARGV[4], 'EX', 3600) end
return answer(answers)
