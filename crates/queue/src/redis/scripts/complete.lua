-- Ends a running job, once.
-- ARGV[3] job, [4] the claim's epoch, [5] node, [6] nonce of this completion, [7] status, [8] result,
-- [9] the event. Answer: '1' when it counts, '0' when the claim is stale.
local id, epoch, node, nonce, status, result, what = unpack(ARGV, 3, 9)
local job = load(id)
if not job then return answer('0') end
if job.status ~= 'started' or job.epoch ~= epoch or job.node ~= node then
  -- The same completion again: its first answer was lost.
  return answer(job.nonce == nonce and '1' or '0')
end
free(id, job)
finish(id, job, status, result, what, nonce)
return answer('1')
