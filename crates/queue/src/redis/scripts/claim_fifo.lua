-- Takes the next job of FifoQ that may start.
-- ARGV[3] node, [4] its life, [5] how many jobs of FifoQ may run on one device, [6] ticket.
-- Answer: epoch of the claim, the job, its sealed request and its record, or nothing.
local node, life, per_device, ticket = ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local n = call('HMGET', P .. 'node:' .. node, 'life', 'alive', 'fifo')
if n[1] ~= life or n[2] ~= '1' or n[3] ~= '1' then return answer() end
call('SREM', P .. 'wake:' .. node, 'fifo')
local from = 0
while true do
  -- Only devices that are full already are passed over, so few pages are read.
  local ids = call('ZRANGE', P .. 'fifo-ready', from, from + 49)
  for _, id in ipairs(ids) do
    local device = call('HGET', P .. 'job:' .. id, 'device')
    local beside = device and call('HGET', P .. 'device:' .. device, 'fifo') or ''
    if not beside or #beside / 37 < per_device then
      return answer(unpack(start(id, node, 'fifo', ticket)))
    end
  end
  if #ids < 50 then return answer() end
  from = from + 50
end
