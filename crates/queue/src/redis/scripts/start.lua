-- What the two ways to claim share. Follows common.lua.

-- Starts a job that may start; returns the claim's epoch, the job and its record.
local function start(id, node, way, ticket)
  local key = P .. 'job:' .. id
  local values = call('HMGET', key, unpack(RECORD))
  local job = { status = values[AT_STATUS], queue = values[AT_QUEUE], device = values[AT_DEVICE] }
  job.is_fifo, job.is_change = job.queue == 'FifoQ', values[AT_KIND] == 'modification'
  dequeue(id, job)
  count('started', 1)
  local epoch = next_epoch()
  local attempt = tonumber(values[AT_ATTEMPT] or 0) + 1
  values[AT_STATUS], values[AT_ATTEMPT], values[AT_NODE] = 'started', tostring(attempt), node
  values[AT_STARTED] = int(math.max(tonumber(values[AT_ENQUEUED] or values[AT_CREATED]), now))
  -- A node for FifoQ alone is named like its worker.
  local suffix = '_' .. values[AT_QUEUE]
  values[AT_WORKER] = string.sub(node, -#suffix) == suffix and node or node .. suffix
  call('HSET', key, 'status', 'started', 'attempt', attempt, 'started', values[AT_STARTED],
    'worker', values[AT_WORKER], 'node', node, 'epoch', epoch, 'way', way, 'ticket', ticket)
  if job.is_change and attempt > 1 then
    call('HDEL', key, 'sending', 'sending_number', 'answered', 'last_line')
    call('DEL', P .. 'lines:' .. id)
  end
  call('SADD', P .. 'running:' .. node, id)
  if job.device then
    local device = P .. 'device:' .. job.device
    if way == 'pinned' then
      call('HSET', device, 'pinned', id, job.is_change and 'writer' or 'last', id)
    else
      local beside = (call('HGET', device, 'fifo') or '') .. id .. ' '
      call('HSET', device, 'fifo', beside, job.is_change and 'writer' or 'last', id)
    end
    refresh(job.device)
  end
  event(now, id, job.device,
    '{"event":"started","worker":' .. cjson.encode(values[AT_WORKER]) .. ',"attempt":' .. attempt .. '}')
  return epoch, id, values
end
