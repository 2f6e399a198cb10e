-- Takes back a claim that reached nobody: the job waits on as if it had not been taken.
-- ARGV[3] node, [4] ticket of the claim, [5] job or ''.
-- Answer: '1' when there was such a claim.
local node, ticket, id = ARGV[3], ARGV[4], ARGV[5]
if id == '' then
  for _, running in ipairs(call('SMEMBERS', P .. 'running:' .. node)) do
    if call('HGET', P .. 'job:' .. running, 'ticket') == ticket then id = running end
  end
end
local key = P .. 'job:' .. id
local job = id ~= '' and load(id)
if not job or job.status ~= 'started' or call('HGET', key, 'ticket') ~= ticket then return answer('0') end
free(id, job)
count_queued(id, job, 1)
call('HSET', key, 'status', 'queued', 'attempt', tonumber(job.attempt) - 1)
call('HDEL', key, 'started', 'worker', 'node', 'epoch', 'way', 'ticket')
enqueue(id, job.device, job.is_fifo, job.order, job.is_change, tonumber(job.enqueued) + tonumber(job.ttl))
if job.device then refresh(job.device) end
after_free()
return answer('1')
