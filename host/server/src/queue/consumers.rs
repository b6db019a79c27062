//! Removes consumers of processes that are gone.
//!
//! Every process reads the stream under a name of its own, and Redis keeps each name for ever. A name is removed when its owner
//! has not asked for anything for [`IDLE_MAX`] (a live one asks every two seconds) and nothing is pending under it: with the
//! name Redis drops what is pending. Looking and removing is one script, so nothing can become pending in between; and a
//! consumer that was removed in error is made again by its next read.

use std::time::Duration;

use redis::RedisResult;
use redis::aio::MultiplexedConnection;

/// Much longer than a live process leaves the stream alone, also while all its workers are busy.
pub const IDLE_MAX: Duration = Duration::from_secs(3_600);

/// `XINFO CONSUMERS` answers with a flat list of names and values per consumer, whose order is not promised.
const SCRIPT: &str = r"
local removed = 0
for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for i = 1, #fields, 2 do consumer[fields[i]] = fields[i + 1] end
  if consumer['name'] ~= ARGV[2] and consumer['pending'] == 0 and consumer['idle'] >= tonumber(ARGV[3]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer['name'])
    removed = removed + 1
  end
end
return removed
";

/// Removes the consumers of a group that are idle for `idle_max` and have nothing pending, except `own`. Returns how many.
pub async fn remove_idle(
    connection: &mut MultiplexedConnection,
    stream: &str,
    group: &str,
    own: &str,
    idle_max: Duration,
) -> RedisResult<u64> {
    redis::cmd("EVAL")
        .arg(SCRIPT)
        .arg(1)
        .arg(stream)
        .arg(group)
        .arg(own)
        .arg(u64::try_from(idle_max.as_millis()).unwrap_or(u64::MAX))
        .query_async(connection)
        .await
}
