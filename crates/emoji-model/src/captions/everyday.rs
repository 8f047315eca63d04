//! Lists everyday words that CLDR gives to many emoji or to none.
//!
//! CLDR's keywords are for searching an emoji keyboard: "car" finds eleven vehicles, "orange" six orange things, and
//! 花 every flower. Somebody who types only such a word means the plainest image of it. Each word here becomes a
//! second name of one concept; everything else in captions is from CLDR.

/// Words by emoji, in English and in Chinese.
#[rustfmt::skip]
const SECOND_NAMES: &[(&str, &[&str], &[&str])] = &[
    // People and faces
    ("😀", &["smiling face", "happy face", "smile", "smiley"], &["笑脸", "开心", "高兴"]),
    ("😢", &["sad face", "sad"], &["伤心", "难过"]),
    ("😂", &["laughing face"], &["笑哭"]),
    ("❤️", &["heart"], &["心", "爱心", "红色的心"]),
    ("👶", &[], &["婴儿"]),
    ("🧑‍⚕️", &["doctor"], &["医生"]),
    ("👮", &["policeman", "cop"], &["警官"]),
    ("🎅", &["santa"], &[]),
    ("🧑‍🚒", &["fireman"], &[]),
    // Animals and plants
    ("🐈", &["kitty"], &["小猫", "猫咪"]),
    ("🐕", &["doggy"], &["小狗", "狗狗"]),
    ("🐦", &["little bird"], &["小鸟"]),
    ("🐟", &["fish"], &["小鱼"]),
    ("🐰", &["bunny"], &["小兔子"]),
    ("🐄", &[], &["牛"]),
    ("🦖", &["dinosaur"], &["恐龙"]),
    ("🌳", &["tree"], &["树", "大树"]),
    ("🌼", &["flower"], &["花", "花朵", "小花"]),
    ("🌹", &["red rose"], &["玫瑰花", "红玫瑰"]),
    // Food and drink
    ("🍎", &["apple"], &["苹果", "红色的苹果"]),
    ("🍊", &["orange"], &["橙子", "桔子"]),
    ("🍞", &["loaf of bread"], &[]),
    ("🥚", &[], &["鸡蛋"]),
    ("🎂", &["cake"], &["蛋糕"]),
    ("🍕", &["slice of pizza"], &["比萨"]),
    ("🍔", &["burger"], &["汉堡包"]),
    ("🍦", &["ice cream cone"], &["冰激凌"]),
    ("🍜", &["noodles"], &["拉面"]),
    ("🍚", &["rice"], &["米"]),
    ("☕", &["coffee", "cup of coffee"], &["咖啡"]),
    ("🍵", &["tea", "cup of tea"], &["茶", "绿茶"]),
    ("🥛", &["milk"], &["牛奶"]),
    ("🍺", &["beer"], &[]),
    ("🍷", &["wine", "red wine", "glass of wine"], &["红酒"]),
    // Vehicles and places
    ("🚗", &["car", "red car"], &["车", "小汽车", "轿车"]),
    ("🚒", &["fire truck", "firetruck"], &["救火车"]),
    ("🚚", &["truck"], &["卡车"]),
    ("🚌", &[], &["公共汽车", "巴士"]),
    ("🚲", &["bike"], &["单车"]),
    ("🏍️", &["motorbike"], &["摩托"]),
    ("✈️", &["plane", "aeroplane"], &[]),
    ("⛵", &["boat"], &["小船"]),
    ("🏠", &["home"], &["家", "屋子"]),
    ("🏖️", &["beach"], &["沙滩", "海滩"]),
    ("🌊", &["sea", "ocean", "wave"], &["海", "大海", "海浪"]),
    ("💧", &["water", "drop of water"], &["水"]),
    ("🌙", &["moon"], &["月亮", "月牙"]),
    ("🌧️", &["rain"], &["雨"]),
    ("❄️", &["snow"], &["雪"]),
    ("🔥", &["flame"], &["火"]),
    ("⚡", &["lightning"], &["闪电"]),
    // Things
    ("📱", &["phone", "cell phone", "smartphone"], &[]),
    ("💻", &["computer"], &["电脑"]),
    ("📺", &["tv"], &["电视"]),
    ("📕", &["book"], &["书本"]),
    ("⏰", &["clock"], &["钟", "时钟"]),
    ("👟", &["shoe", "sneaker"], &["鞋", "鞋子", "运动鞋"]),
    ("🎩", &["hat"], &["帽子"]),
    ("👕", &["shirt"], &["衣服"]),
    ("👔", &["tie"], &["衬衫"]),
    ("👖", &["pants"], &["裤子"]),
    ("👗", &[], &["裙子"]),
    ("☂️", &[], &["雨伞"]),
    ("🎁", &["gift", "present"], &[]),
    ("⚽", &["ball", "football"], &["球"]),
    ("🔪", &["knife"], &["刀"]),
    ("🔫", &["gun"], &["枪"]),
    ("🪙", &["gold coin"], &["金币"]),
    ("💵", &["money"], &["钱"]),
];

/// The second names of an emoji in a language.
pub(super) fn second_names(emoji: &str, language: &str) -> &'static [&'static str] {
    let Some((_, english, chinese)) = SECOND_NAMES.iter().find(|(known, _, _)| *known == emoji) else {
        return &[];
    };
    match language {
        "en" => english,
        "zh" => chinese,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::SECOND_NAMES;

    #[test]
    fn a_word_means_one_emoji() {
        let (mut emoji, mut words) = (HashSet::new(), HashSet::new());
        for (symbol, english, chinese) in SECOND_NAMES {
            assert!(emoji.insert(symbol), "{symbol} stands here twice");
            for word in english.iter().chain(*chinese) {
                assert!(words.insert(word), "{word} means two emoji");
            }
        }
    }
}
