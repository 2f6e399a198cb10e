-- Cancels a job, as far as it can be.
-- ARGV[3] job, [4] reason, [5] nonce. Answer: 'B' before its start, 'A' its worker was asked,
-- 'T' too late, 'U' unknown; then the job's record.
local id, reason, nonce = ARGV[3], ARGV[4], ARGV[5]
local key = P .. 'job:' .. id
local job = load(id)
local met = 'U'
if job and job.status == 'started' then
  if not job.cancel then call('HSET', key, 'cancel', reason) end
  tell(job.node, 'c:' .. id)
  met = 'A'
elseif job and (job.status == 'queued' or job.status == 'scheduled') then
  dequeue(id, job)
  end_canceled(id, job, reason, nonce)
  met = 'B'
elseif job then
  met = job.nonce == nonce and 'B' or 'T'
end
return answer(met, call('HMGET', key, unpack(RECORD)))
