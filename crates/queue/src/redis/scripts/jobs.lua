-- Jobs that wait or run. Follows devices.lua.

-- Puts a job that is counted as queued into its queue. The caller refreshes its device.
local function enqueue(id, device, fifo, order, change, deadline)
  call('ZADD', P .. 'timers', int(deadline), 'j:' .. id)
  if fifo then call('ZADD', P .. 'fifo', order, id) end
  if device then
    call('ZADD', P .. (fifo and 'fifo:' or 'queue:') .. device, order, id)
    if change then call('ZADD', P .. 'changes:' .. device, order, id) end
  else
    call('ZADD', P .. 'fifo-ready', order, id)
    tell_fifo()
  end
end

-- A job waits, for its turn or its time (`by` is 1), or no more (-1).
local function count_queued(id, job, by)
  if by > 0 then call('ZADD', P .. 'waiting', job.created, id) else call('ZREM', P .. 'waiting', id) end
  if job.device then
    local d = dev(job.device)
    set(d, 'queued', d.queued + by)
  end
end

local NAMES = { 'status', 'kind', 'queue', 'device', 'order', 'created', 'enqueued', 'started', 'attempt',
  'ttl', 'result_ttl', 'node', 'epoch', 'way', 'lost', 'cancel', 'notify', 'key', 'nonce', 'sending',
  'sending_number', 'answered', 'last_line', 'attempts' }

-- The fields of a job that decide (or those of `names`); nil when there is no such job.
local function load(id, names)
  names = names or NAMES
  local values = call('HMGET', P .. 'job:' .. id, unpack(names))
  if not values[1] then return nil end
  local job = {}
  for n, name in ipairs(names) do job[name] = values[n] or nil end
  job.enqueued, job.attempt = job.enqueued or job.created, job.attempt or '0'
  job.is_fifo = job.queue == 'FifoQ'
  job.is_change = job.kind == 'modification'
  return job
end

-- The host of a device: `host`, `host:port` or `[v6]:port`.
local function host_of(device)
  local v6 = string.match(device, '^%[(.-)%]')
  if v6 then return v6 end
  local name = string.match(device, '^([^:]*):[^:]*$')
  return name or device
end

-- Strikes a job off the lists.
local function unlist(id, job)
  call('ZREM', P .. 'jobs', id)
  if job.device then call('ZREM', P .. 'host:' .. host_of(job.device), id) end
end

-- Takes a waiting or delayed job out; it is no longer counted as queued. Its entry in `timers` stays:
-- one job has one, which gets another time when the job ends or waits again, and means nothing before.
local function dequeue(id, job)
  count_queued(id, job, -1)
  if job.status == 'scheduled' then return end
  if job.is_fifo then call('ZREM', P .. 'fifo', id) end
  if job.device then
    call('ZREM', P .. (job.is_fifo and 'fifo:' or 'queue:') .. job.device, id)
    if job.is_change then call('ZREM', P .. 'changes:' .. job.device, id) end
  else
    call('ZREM', P .. 'fifo-ready', id)
  end
end

-- Takes a running job off its node and device. The caller refreshes the device.
local function free(id, job)
  count('started', -1)
  call('SREM', P .. 'running:' .. job.node, id)
  if job.cancel then call('SREM', P .. 'wake:' .. job.node, 'c:' .. id) end
  if not job.device then return end
  local d = dev(job.device)
  if job.way == 'pinned' then
    set(d, 'pinned', false)
  else
    local left = string.gsub(d.fifo or '', string.gsub(id, '%-', '%%-') .. ' ', '')
    set(d, 'fifo', left ~= '' and left)
  end
  if job.is_change then set(d, 'writer', false) end
end

-- A slot came free: another job of FifoQ may start.
local function after_free()
  if not fifo_told and call('EXISTS', P .. 'fifo-ready') == 1 then tell_fifo() end
end
