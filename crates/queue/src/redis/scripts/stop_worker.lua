-- Asks a worker to end after its current job. ARGV[3] its name. Answer: '1' when it was told.
local record = call('HGET', P .. 'workers', ARGV[3])
if not record then return answer('0') end
local node = cjson.decode(record).hostname
if call('HGET', P .. 'node:' .. node, 'alive') ~= '1' then return answer('0') end
tell(node, 's:' .. ARGV[3])
return answer('1')
